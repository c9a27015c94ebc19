"""Measure the nano world; every figure of the data and model cards comes from here.

    python tools/measure.py faces       # dlib on held-out renders; writes data/faces/calibration.json
    python tools/measure.py purifier    # what purification does to clean held-out faces
    python tools/measure.py vae         # reconstruction
    python tools/measure.py prompts     # detected faces; do hair and background follow the prompt?
    python tools/measure.py customize   # DreamBooth and LoRA on clean photos against the calibration
    python tools/measure.py workflow    # clean, protected, protected and purified: the main question

Each writes its figures as JSON to data/results/nano_<name>.json. The calibration people (seeds from 8000) and
the tuning people (seeds from 8500) are neither trained on nor reported.
"""

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import torch

from antipure_lib import (
    antipure,
    diffpure,
    gridpure,
    identities,
    load_ddpm,
    load_faces,
    load_stable_diffusion,
    to_model,
)
from antipure_lib.customize import dreambooth, lora
from antipure_lib.generate import generate
from antipure_lib.images import from_model
from antipure_lib.judge import Judge

ROOT = Path(__file__).resolve().parents[1]
PROMPT, CLASS_PROMPT = "a photo of sks person", "a photo of a person"


def write_json(path: Path, values: dict) -> None:
    """Write figures, rounded, under a temporary name and rename."""
    path.parent.mkdir(parents=True, exist_ok=True)

    def tidy(value):
        if isinstance(value, dict):
            return {k: tidy(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [tidy(v) for v in value]
        return round(float(value), 4) if isinstance(value, float | np.floating | torch.Tensor) else value

    text = json.dumps(tidy(values), indent=1) + "\n"
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    os.replace(temporary, path)
    print(text)


def spread(values) -> dict:
    """Mean, standard deviation and count of figures; nan left out."""
    values = torch.as_tensor(values, dtype=torch.float64).flatten()
    values = values[~values.isnan()]
    return {"mean": values.mean(), "sd": values.std() if len(values) > 1 else 0.0, "n": len(values)}


def faces(judge: Judge, people: int = 100, photos: int = 6) -> None:
    """Detection, separation of identities, and the distance that 1 % of strangers fall under."""
    from render_faces import photos_of

    embeddings, names = [], []
    for seed in range(8000, 8000 + people):
        pictures = torch.from_numpy(photos_of(seed, photos, 64)[0]).permute(0, 3, 1, 2).float() / 255
        embeddings.append(judge.embed(pictures))
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
    threshold = (
        distance[~same].quantile(0.01)
        if (~same).sum() < 1e7
        else distance[~same].kthvalue(int(0.01 * (~same).sum()))[0]
    )
    nearest = (torch.cdist(e, e) + torch.eye(len(e)) * 9).argmin(1)
    values = dict(
        made_by="python tools/measure.py faces",
        people=people,
        photos=photos,
        size=64,
        detected=found.double().mean(),
        auc=auc,
        nearest_neighbour=(names[nearest] == names).double().mean(),
        threshold=threshold,
        fpr=(distance[~same] <= threshold).double().mean(),
        tpr=(distance[same] <= threshold).double().mean(),
        distance_same=spread(distance[same]),
        distance_different=spread(distance[~same]),
        cosine_same=spread(cosine[same]),
        cosine_different=spread(cosine[~same]),
    )
    write_json(ROOT / "data/faces/calibration.json", values)


def purifier(judge: Judge) -> None:
    """PSNR and identity after purification of clean held-out faces."""
    ddpm = load_ddpm()
    runs = {
        "clean": lambda x: x,
        "diffpure t=10": lambda x: diffpure(ddpm, x, t=10),
        "gridpure 20": lambda x: gridpure(ddpm, x, iterations=20),
        "gridpure 40": lambda x: gridpure(ddpm, x, iterations=20, rounds=2),
        "diffpure t=50": lambda x: diffpure(ddpm, x, t=50),
        "diffpure t=100": lambda x: diffpure(ddpm, x, t=100),
    }
    people = identities()
    x = torch.cat([load_faces(name, "B") for name in people])
    reference = {name: judge.embed(load_faces(name, "C")) for name in people}
    rows = {}
    for name, run in runs.items():
        began = time.time()
        y = run(x)
        faces_found = judge.embed(y)
        distance = torch.cat(
            [judge.distance(faces_found[4 * k : 4 * k + 4], reference[p]) for k, p in enumerate(people)]
        )
        rows[name] = dict(
            psnr=spread(judge.psnr(x, y)) if name != "clean" else None,
            distance_to_set_C=spread(distance),
            same_person=(distance <= judge.threshold).double().mean(),
            fdfr=judge.fdfr(faces_found),
            seconds=time.time() - began,
        )
        print(name, rows[name], flush=True)
    write_json(
        ROOT / "data/results/nano_purifier.json",
        dict(made_by="python tools/measure.py purifier", photos=len(x), rows=rows),
    )


@torch.no_grad()
def vae(judge: Judge) -> None:
    """Reconstruction of held-out faces."""
    pipe = load_stable_diffusion()
    people = identities()
    x = torch.cat([load_faces(name, "B") for name in people])
    y = from_model(pipe.vae.decode(pipe.vae.encode(to_model(x)).latent_dist.mean).sample)
    before, after = judge.embed(x), judge.embed(y)
    to_c = [judge.distance(after[4 * k : 4 * k + 4], load_faces(p, "C")) for k, p in enumerate(people)]
    write_json(
        ROOT / "data/results/nano_vae.json",
        dict(
            made_by="python tools/measure.py vae",
            photos=len(x),
            psnr=spread(judge.psnr(x, y)),
            ssim=spread(judge.ssim(x, y)),
            lpips=spread(judge.lpips(x, y)),
            fdfr=judge.fdfr(after),
            distance_to_the_same_photo=spread((before - after).norm(dim=1)),
            distance_to_set_C=spread(torch.cat(to_c)),
            same_person=(torch.cat(to_c) <= judge.threshold).double().mean(),
        ),
    )


def background_of(images: torch.Tensor) -> list[str]:
    """The named colour nearest to the upper corners, mostly by hue: the light should not matter."""
    from face_people import BACKGROUNDS

    names = list(BACKGROUNDS)
    anchors = torch.tensor([BACKGROUNDS[name] for name in names]).float() / 255
    corners = (
        torch.cat([images[..., 2:14, 2:10].flatten(2), images[..., 2:14, -10:-2].flatten(2)], 2)
        .median(2)
        .values
    )
    return [names[k] for k in _nearest(corners, anchors)]


def _nearest(colours: torch.Tensor, anchors: torch.Tensor) -> list[int]:
    def features(c):
        level = c.max(1, keepdim=True).values
        return torch.cat([(c - level) / (level + 1e-3), 0.35 * level], 1)

    return torch.cdist(features(colours), features(anchors)).argmin(1).tolist()


def hair_of(images: torch.Tensor, background: torch.Tensor) -> torch.Tensor:
    """Mean colour of the top of the head (N×3): what differs from the background above the forehead."""
    top = images[..., 3:18, 20:44].flatten(2)
    far = (top - background[:, :, None]).abs().sum(1)
    weight = (far > 0.25).float() + 1e-4
    return (top * weight[:, None]).sum(2) / weight.sum(1, keepdim=True)


def prompts(judge: Judge, per_colour: int = 24) -> None:
    """Share of samples with a face, and of samples whose hair and background follow the prompt.

    Hair is named by the nearest median hair colour of renders (black, brown, blond, red, grey); the same rule
    applied to other renders says how far to trust it.
    """
    from face_people import BACKGROUNDS, HAIR_COLOURS, sample_identity, sample_photo
    from face_render import build_person, head, render

    pipe = load_stable_diffusion()
    people = generate(pipe, CLASS_PROMPT, n=128, seed=5)
    fdfr = judge.fdfr(people)
    real, real_hair, real_background = [], [], []
    for seed in range(8100, 8300):
        identity = sample_identity(seed, head().pairs)
        if identity["style"] in ("shaved", "receding"):
            continue
        photo = sample_photo(0, identity)
        real.append(
            torch.from_numpy(render(build_person(identity), photo, 64)).permute(2, 0, 1).float() / 255
        )
        real_hair.append(identity["hair_name"])
        real_background.append(photo["background_name"])
    real = torch.stack(real)

    def corners(images):
        return (
            torch.cat([images[..., 2:14, 2:10].flatten(2), images[..., 2:14, -10:-2].flatten(2)], 2)
            .median(2)
            .values
        )

    colours = hair_of(real, corners(real))
    names = list(HAIR_COLOURS)
    half = len(real) // 2
    anchors = torch.stack(
        [colours[:half][[h == n for h in real_hair[:half]]].median(0).values for n in names]
    )

    def hair_names(images):
        return [
            names[k]
            for k in torch.cdist(hair_of(images, corners(images)).sqrt(), anchors.sqrt()).argmin(1).tolist()
        ]

    rule_hair = np.mean([a == b for a, b in zip(hair_names(real[half:]), real_hair[half:], strict=True)])
    rule_background = np.mean([a == b for a, b in zip(background_of(real), real_background, strict=True)])
    follow_background = {
        name: np.mean(
            [
                b == name
                for b in background_of(
                    generate(pipe, f"a photo of a person, {name} background", n=per_colour, seed=6)
                )
            ]
        )
        for name in BACKGROUNDS
    }
    follow_hair = {
        name: np.mean(
            [
                h == name
                for h in hair_names(
                    generate(pipe, f"a photo of a person with long {name} hair", n=per_colour, seed=7)
                )
            ]
        )
        for name in names
    }
    write_json(
        ROOT / "data/results/nano_prompts.json",
        dict(
            made_by="python tools/measure.py prompts",
            face_detected=1 - fdfr,
            samples=len(people),
            background_follows=np.mean(list(follow_background.values())),
            hair_follows=np.mean(list(follow_hair.values())),
            background_by_colour=follow_background,
            hair_by_colour=follow_hair,
            rule_on_renders=dict(background=rule_background, hair=rule_hair),
            per_colour=per_colour,
        ),
    )


def score(judge: Judge, pipe, reference: torch.Tensor, n: int = 16, seed: int = 1) -> dict:
    """Judge a customized model by its samples."""
    samples = generate(pipe, PROMPT, n=n, seed=seed)
    found = judge.embed(samples)
    distance = judge.distance(found, reference)
    return dict(
        ism=judge.ism(found, reference),
        distance=float(distance.nanmean()),
        same_person=judge.same_person(found, reference),
        fdfr=judge.fdfr(found),
    )


def customize(judge: Judge, people: int = 6) -> None:
    """DreamBooth and LoRA on four clean photos (set B), judged against set C and against other people."""
    pipe = load_stable_diffusion()
    names = identities()[:people]
    embedded = {name: judge.embed(load_faces(name, "C")) for name in identities()}
    rows = []
    for method, run in (("dreambooth", dreambooth), ("lora", lora)):
        for name in names:
            began = time.time()
            trained = run(pipe, load_faces(name, "B"), seed=0)
            seconds = time.time() - began
            row = dict(method=method, identity=name, seconds=seconds) | score(judge, trained, embedded[name])
            samples = judge.embed(generate(trained, PROMPT, n=16, seed=1))
            others = [float(judge.distance(samples, e).nanmean()) for n, e in embedded.items() if n != name]
            row["distance_to_others"] = float(np.nanmean(others))
            rows.append(row)
            print(row, flush=True)
    real = {
        "set B to set C": spread(
            torch.cat([judge.distance(judge.embed(load_faces(n, "B")), embedded[n]) for n in names])
        ),
        "ism of set B": spread([judge.ism(judge.embed(load_faces(n, "B")), embedded[n]) for n in names]),
        "ism of other people": spread(
            [judge.ism(judge.embed(load_faces(m, "B")), embedded[n]) for n in names for m in names if m != n]
        ),
    }
    summary = {
        method: {
            key: spread([r[key] for r in rows if r["method"] == method])
            for key in ("ism", "distance", "same_person", "fdfr", "seconds", "distance_to_others")
        }
        for method in ("dreambooth", "lora")
    }
    write_json(
        ROOT / "data/results/nano_customize.json",
        dict(
            made_by="python tools/measure.py customize",
            threshold=judge.threshold,
            summary=summary,
            real=real,
            rows=rows,
        ),
    )


def workflow(judge: Judge, people: int = 6, eta: float = 8 / 255, steps: int = 100) -> None:
    """The main question: is what is learned from protected and purified photos worse than from clean ones?"""
    ddpm, pipe = load_ddpm(), load_stable_diffusion()
    prior = generate(pipe, CLASS_PROMPT, n=16, seed=0)
    rows = []
    for name in identities()[:people]:
        x = load_faces(name, "B")
        reference = judge.embed(load_faces(name, "C"))
        protected = antipure(ddpm, x, eta=eta, steps=steps)
        generator = torch.Generator().manual_seed(0)
        noise = (torch.randint(0, 2, x.shape, generator=generator) * 2 - 1) * eta
        noisy = ((x + noise).clamp(0, 1) * 255).round() / 255
        sets = {
            "clean": x,
            "clean, purified": gridpure(ddpm, x, rounds=2),
            "random sign": noisy,
            "random sign, purified": gridpure(ddpm, noisy, rounds=2),
            "antipure": protected,
            "antipure, purified": gridpure(ddpm, protected, rounds=2),
        }
        for kind, photos in sets.items():
            trained = dreambooth(pipe, photos, prior_images=prior, seed=0)
            row = dict(
                identity=name,
                photos=kind,
                psnr=float(judge.psnr(x, photos).mean()) if kind != "clean" else None,
            )
            row |= dict(lpips=float(judge.lpips(x, photos).mean())) | score(judge, trained, reference)
            rows.append(row)
            print(row, flush=True)
            kinds = dict.fromkeys(r["photos"] for r in rows)
            summary = {
                k: {
                    key: spread([r[key] for r in rows if r["photos"] == k])
                    for key in ("ism", "distance", "same_person", "fdfr", "lpips")
                }
                for k in kinds
            }
            write_json(
                ROOT / "data/results/nano_workflow.json",
                dict(
                    made_by="python tools/measure.py workflow",
                    eta=eta,
                    steps=steps,
                    summary=summary,
                    rows=rows,
                ),
            )


if __name__ == "__main__":
    parts = dict(
        faces=faces, purifier=purifier, vae=vae, prompts=prompts, customize=customize, workflow=workflow
    )
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=parts)
    parts[parser.parse_args().part](Judge())
