"""Measure the nano world; every figure of the data and model cards comes from here.

    python -m tools.study.nano faces       # dlib on held-out renders; writes data/faces/calibration.json
    python -m tools.study.nano purifier    # what purification does to clean held-out faces
    python -m tools.study.nano vae         # reconstruction
    python -m tools.study.nano prompts     # detected faces; do hair and background follow the prompt?
    python -m tools.study.nano customize   # DreamBooth and LoRA on clean photos against the calibration
    python -m tools.study.nano rare_word   # DreamBooth of tuning people, the word `sks` untrained or not
    python -m tools.study.nano warmup      # DreamBooth of tuning people with and without a warm-up

Each writes its figures as JSON to data/results/nano_<name>.json. The calibration people (seeds from 8000) and
the tuning people (seeds from 8500) are neither trained on nor reported.
"""

import itertools
import json
import time
from pathlib import Path

import numpy as np
import torch

from antipure_lib import (
    diffpure,
    gridpure_steps,
    identities,
    load_ddpm,
    load_faces,
    load_stable_diffusion,
    pick_dtype,
    quantise,
    to_model,
)
from antipure_lib.core.images import from_model
from antipure_lib.customization.dreambooth import dreambooth, dreambooth_steps
from antipure_lib.customization.generate import generate
from antipure_lib.customization.latent_diffusion import CLASS_PROMPT, text_embeddings
from antipure_lib.customization.lora import lora
from antipure_lib.judges.faces import Judge
from tools import command_line
from tools.models.rare_word import NAME, SEED, SIZE, make_heard
from tools.study import lines
from tools.study.prompts import follow_prompts
from tools.study.tuning import rendered

ROOT = Path(__file__).resolve().parents[2]
PROMPT = "a photo of sks person"


def write_json(path: Path, values: dict) -> None:
    """Write and print figures, rounded to four places."""

    def tidy(value):
        if isinstance(value, dict):
            return {k: tidy(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [tidy(v) for v in value]
        return round(float(value), 4) if isinstance(value, float | np.floating | torch.Tensor) else value

    lines.write_json(path, tidy(values))
    print(json.dumps(tidy(values), indent=1))


def spread(values) -> dict:
    """Mean, standard deviation and count of figures; nan left out."""
    values = torch.as_tensor(values, dtype=torch.float64).flatten()
    values = values[~values.isnan()]
    return {"mean": values.mean(), "sd": values.std() if len(values) > 1 else 0.0, "n": len(values)}


def faces(judge: Judge, people: int = 100, photos: int = 6) -> None:
    """Detection, separation of identities, and the distance that 1 % of strangers fall under."""
    embeddings, names = [], []
    for seed in range(8000, 8000 + people):
        embeddings.append(judge.embed(rendered(seed, photos)))
        names += [seed] * photos
    embeddings, names = torch.cat(embeddings), torch.tensor(names)
    found = ~embeddings.isnan().any(1)
    e, names = embeddings[found], names[found]
    upper = torch.triu_indices(len(e), len(e), 1)
    distance = torch.cdist(e, e)[upper[0], upper[1]]
    cosine = torch.nn.functional.cosine_similarity(e[upper[0]], e[upper[1]])
    same = (names[:, None] == names[None])[upper[0], upper[1]]
    order = distance.argsort()
    positives = same[order].double().cumsum(0)
    auc = positives[~same[order]].mean() / same.sum()
    strangers = distance[~same]
    few = len(strangers) < 1e7  # `quantile` takes only so many
    threshold = strangers.quantile(0.01) if few else strangers.kthvalue(int(0.01 * len(strangers)))[0]
    nearest = (torch.cdist(e, e) + torch.eye(len(e)) * 9).argmin(1)
    # ISM of a photo, with the mean of four others of its person or of somebody else.
    person = embeddings.view(people, photos, -1)
    ism = torch.nn.functional.cosine_similarity(
        person[:, : photos - 4, None], person[:, photos - 4 :].nanmean(1), dim=-1
    )
    own = torch.eye(people, dtype=torch.bool)[:, None].expand_as(ism)
    values = dict(
        made_by="python -m tools.study.nano faces",
        people=people,
        photos=photos,
        size=64,
        detected=found.double().mean(),
        auc=auc,
        nearest_neighbour=(names[nearest] == names).double().mean(),
        threshold=threshold,
        fpr=(strangers <= threshold).double().mean(),
        tpr=(distance[same] <= threshold).double().mean(),
        distance_same=spread(distance[same]),
        distance_different=spread(strangers),
        cosine_same=spread(cosine[same]),
        cosine_different=spread(cosine[~same]),
        ism_same=spread(ism[own]) | {"quantile_0.01": ism[own].nanquantile(0.01)},
        ism_different=spread(ism[~own]) | {"quantile_0.99": ism[~own].nanquantile(0.99)},
    )
    write_json(ROOT / "data/faces/calibration.json", values)


def purifier(judge: Judge, photos: int = 2) -> None:
    """PSNR and identity after purification of clean held-out faces (the first `photos` of set B of each)."""
    ddpm, people = load_ddpm(dtype=torch.float32), identities()  # so every processor finds the same
    x = torch.cat([load_faces(name, "B")[:photos] for name in people])
    reference = [judge.embed(load_faces(name, "C")) for name in people]
    purified = {"clean": x, "diffpure t=10": diffpure(ddpm, x, t=10)}
    for state in gridpure_steps(ddpm, x, iterations=40):
        if state.iteration + 1 in (20, 40):
            purified[f"gridpure {state.iteration + 1}"] = quantise(state.x)
        print(f"gridpure {state.iteration + 1}/40", flush=True)
    purified |= {f"diffpure t={t}": diffpure(ddpm, x, t=t) for t in (50, 100)}
    rows = {}
    for name, y in purified.items():
        faces_found = judge.embed(y).split(photos)
        distance = torch.cat([judge.distance(e, r) for e, r in zip(faces_found, reference, strict=True)])
        rows[name] = dict(
            psnr=spread(judge.psnr(x, y)) if name != "clean" else None,
            distance_to_set_C=spread(distance),
            same_person=(distance <= judge.threshold).double().mean(),
            fdfr=judge.fdfr(torch.cat(faces_found)),
        )
    values = dict(made_by="python -m tools.study.nano purifier", photos=len(x), rows=rows)
    write_json(ROOT / "data/results/nano_purifier.json", values)


@torch.no_grad()
def vae(judge: Judge) -> None:
    """Reconstruction of held-out faces."""
    pipe = load_stable_diffusion()
    people = identities()
    x = torch.cat([load_faces(name, "B") for name in people])
    y = from_model(pipe.vae.decode(pipe.vae.encode(to_model(x)).latent_dist.mean).sample)
    before, after = judge.embed(x), judge.embed(y)
    to_c = [judge.distance(after[4 * k : 4 * k + 4], load_faces(p, "C")) for k, p in enumerate(people)]
    values = dict(made_by="python -m tools.study.nano vae", photos=len(x))
    values |= {name: spread(getattr(judge, name)(x, y)) for name in ("psnr", "ssim", "lpips")}
    values |= dict(
        fdfr=judge.fdfr(after),
        distance_to_the_same_photo=spread((before - after).norm(dim=1)),
        distance_to_set_C=spread(torch.cat(to_c)),
        same_person=(torch.cat(to_c) <= judge.threshold).double().mean(),
    )
    write_json(ROOT / "data/results/nano_vae.json", values)


def prompts(judge: Judge) -> None:
    """Share of samples with a face, and of samples whose hair and background follow the prompt."""
    found = follow_prompts(judge, load_stable_diffusion())
    values = dict(made_by="python -m tools.study.nano prompts") | found
    write_json(ROOT / "data/results/nano_prompts.json", values)


def score(judge: Judge, pipe, reference: torch.Tensor, strangers: list[torch.Tensor] = ()) -> dict:
    """Judge a customized model by 16 samples, against the person and against other people."""
    found = judge.embed(generate(pipe, PROMPT, n=16, seed=1, dtype=pick_dtype(pipe.unet.device)))
    values = dict(
        ism=judge.ism(found, reference),
        distance=float(judge.distance(found, reference).nanmean()),
        same_person=judge.same_person(found, reference),
        fdfr=judge.fdfr(found),
    )
    if strangers:
        others = torch.stack([judge.distance(found, stranger).nanmean() for stranger in strangers])
        values["distance_to_others"] = float(others.nanmean())
    return values


def customize(judge: Judge, people: int = 6, seeds: range = range(2)) -> None:
    """DreamBooth and LoRA on four clean photos (set B), judged against set C and against other people.

    A person's figure is the mean over the seeds; the spread is over people.
    """
    pipe = load_stable_diffusion()
    names = identities()[:people]
    embedded = {name: judge.embed(load_faces(name, "C")) for name in identities()}
    rows = []
    methods = {"dreambooth": dreambooth, "lora": lora}
    for method, run in methods.items():
        for name, seed in itertools.product(names, seeds):
            began = time.time()
            trained = run(pipe, load_faces(name, "B"), seed=seed, dtype=pick_dtype(pipe.unet.device))
            seconds = time.time() - began
            strangers = [faces_of for other, faces_of in embedded.items() if other != name]
            row = dict(method=method, identity=name, seed=seed, seconds=seconds)
            rows.append(row | score(judge, trained, embedded[name], strangers))
            print(rows[-1], flush=True)
    own = {name: judge.embed(load_faces(name, "B")) for name in names}
    real = {
        "distance, set B to set C": spread(torch.cat([judge.distance(own[n], embedded[n]) for n in names])),
        "ism of set B": spread([judge.ism(own[n], embedded[n]) for n in names]),
        "ism of others": spread([judge.ism(own[m], embedded[n]) for n in names for m in names if m != n]),
    }

    def of_people(method: str, key: str) -> dict:
        """Mean over each person's seeds, then the spread over people."""
        found = [[r[key] for r in rows if (r["method"], r["identity"]) == (method, name)] for name in names]
        return spread(torch.tensor(found, dtype=torch.float64).nanmean(1))

    judged = ("ism", "distance", "same_person", "fdfr", "seconds", "distance_to_others")
    summary = {method: {key: of_people(method, key) for key in judged} for method in methods}
    values = dict(made_by="python -m tools.study.nano customize", threshold=judge.threshold)
    write_json(
        ROOT / "data/results/nano_customize.json", values | dict(summary=summary, real=real, rows=rows)
    )


def rare_word(judge: Judge, people: range = range(8500, 8504)) -> None:
    """DreamBooth on four clean photos of tuning people, with two embeddings of the rare word.

    "untrained" is an embedding as training leaves it. Faces of the class prompt show whether the two prompts
    have come apart.
    """
    kinds = {"untrained": None, "heard": (SIZE, SEED)}
    photos = {k: rendered(k) for k in people}
    rows = []
    for name, drawn in kinds.items():
        pipe = load_stable_diffusion()
        dtype = pick_dtype(pipe.unet.device)
        if drawn:
            make_heard(pipe.text_encoder, pipe.tokenizer, *drawn)
        else:
            table = pipe.text_encoder.get_input_embeddings().weight.data
            untrained = 0.02 * torch.randn(table.shape[1], generator=torch.Generator().manual_seed(0))
            table[pipe.tokenizer.convert_tokens_to_ids(f"{NAME}</w>")] = untrained.to(table)
        for person, x in photos.items():
            kept = judge.embed(x[8:])
            trained = dreambooth(pipe, x[4:8], seed=0, dtype=dtype)
            row = dict(embedding=name, person=person)
            row["own_photos"] = float(judge.distance(judge.embed(x[4:8]), kept).mean())
            for key, prompt in (("sks", PROMPT), ("class", CLASS_PROMPT)):
                found = judge.embed(generate(trained, prompt, n=16, seed=1, dtype=dtype))
                row |= {key: float(judge.distance(found, kept).nanmean()), f"{key}_fdfr": judge.fdfr(found)}
            rows.append(row)
            print(row, flush=True)
    keys = ("own_photos", "sks", "class")
    kept = {name: [row for row in rows if row["embedding"] == name] for name in kinds}
    summary = {name: {key: spread([row[key] for row in own]) for key in keys} for name, own in kept.items()}
    values = dict(made_by="python -m tools.study.nano rare_word", summary=summary, rows=rows)
    write_json(ROOT / "data/results/nano_rare_word.json", values)


def warmup(judge: Judge, people: range = range(8500, 8508), shares: tuple = (0, 0.1), seed: int = 2) -> None:
    """DreamBooth on four clean photos of tuning people, without a warm-up and with one.

    "apart": how far the embeddings of the two prompts are from each other, before and after ten steps.
    """
    pipe = load_stable_diffusion()
    dtype = pick_dtype(pipe.unet.device)
    rows = []
    for person, n in itertools.product(people, shares):
        x = rendered(person)
        row = dict(warmup=n, person=person, seed=seed, apart_before=prompts_apart(pipe))
        for state in dreambooth_steps(pipe, x[4:8], warmup=n, seed=seed, dtype=dtype):
            if state.step == 10:
                row["apart_after_10"] = prompts_apart(state.pipe)
        rows.append(row | score(judge, state.pipe, judge.embed(x[8:])))
        print(rows[-1], flush=True)
    keys = ("apart_before", "apart_after_10", "ism", "distance", "same_person", "fdfr")
    summary = {n: {key: spread([r[key] for r in rows if r["warmup"] == n]) for key in keys} for n in shares}
    values = dict(made_by="python -m tools.study.nano warmup", summary=summary, rows=rows)
    write_json(ROOT / "data/results/nano_warmup.json", values)


@torch.no_grad()
def prompts_apart(pipe) -> float:
    """Euclidean distance between the embeddings of the rare word's prompt and of the class's."""
    person, anybody = text_embeddings(pipe, [PROMPT, CLASS_PROMPT])()
    return float((person - anybody).norm())


if __name__ == "__main__":
    parts = dict(faces=faces, purifier=purifier, vae=vae, prompts=prompts, customize=customize)
    parts |= dict(rare_word=rare_word, warmup=warmup)
    parser = command_line(__doc__)
    parser.add_argument("part", choices=parts)
    parts[parser.parse_args().part](Judge())
