"""What chapter 00 shows: one person's photos under three protections, and what LoRA learns from them.

    python -m tools.study.start photos     # data/start/: protected photos of PERSON, 8-bit PNG
    python -m tools.study.start learn      # rates.json and faces.png: pass rates and generated faces

PERSON was chosen for clarity: of the study's eight people this one is learned best from clean photos. Chapter
00 says so, and shows the others. AdvDM has the study's setting, AntiPure and the workflow attack have --fast.
"""

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt
import torch

import antipure_lib as ap
from antipure_lib.benchmark.study import TUNED
from antipure_lib.photos.pictures import atomic

FOLDER = Path(__file__).resolve().parents[2] / "data/start"
PERSON, ETA, ITERATIONS, SAMPLES = "p06", 16 / 255, 10, 16
METHODS = {
    "advdm": dict(steps=12, **TUNED["advdm"]),  # four draws of noise per step, so 50 calls of the model
    "antipure": ap.fast(ETA),
    "workflow": ap.fast(ETA),
}
PROMPT = "a photo of sks person"


def photos() -> None:
    """Protect the person's set B in every way."""
    x, models = ap.load_faces(PERSON, "B"), dict(ddpm=ap.load_ddpm(), pipe=ap.load_stable_diffusion())
    for name, options in METHODS.items():
        protected = ap.protect(name, x, **models, **dict(eta=ETA) | options)
        for k, photo in enumerate(protected, 1):
            ap.save_image(photo, FOLDER / f"{name}{k}.png")
        print(f"{name}: LPIPS {ap.Judge().lpips(x, protected).mean():.3f}", flush=True)


def learn() -> None:
    """Learn each set as posted and as purified; write pass rates and a picture of generated faces."""
    judge, ddpm, pipe = ap.Judge(), ap.load_ddpm(), ap.load_stable_diffusion()
    person, dtype = judge.embed(ap.load_faces(PERSON, "C")), ap.pick_dtype(ap.pick_device())
    sets = {"clean": ap.load_faces(PERSON, "B")} | {name: protected(name) for name in METHODS}
    rates, faces = {}, {}
    for name, posted in sets.items():
        purified = ap.gridpure(ddpm, posted, iterations=ITERATIONS, seed=0)
        for stage, learned in (("posted", posted), ("purified", purified)):
            model = ap.lora(pipe, learned, seed=0, dtype=dtype)
            images = ap.generate(model, PROMPT, n=SAMPLES, seed=0, dtype=dtype)
            rates[f"{name}, {stage}"] = judge.same_person(judge.embed(images), person)
            faces[name, stage] = images[:4]
            print(f"{name}, {stage}: pass rate {rates[f'{name}, {stage}']:.2f}", flush=True)
    with atomic(FOLDER / "rates.json") as part:
        part.write_text(json.dumps(rates, indent=1) + "\n", encoding="utf-8")
    rows = {name: torch.cat([faces[name, "posted"], faces[name, "purified"]]) for name in sets}
    titles = ["as posted", "", "", "", "purified", "", "", ""]
    figure = ap.show_rows(rows, column_titles=titles, scale=1.2)
    with atomic(FOLDER / "faces.png") as part:
        figure.savefig(part, dpi=100, format="png")
    plt.close(figure)


def protected(name: str) -> torch.Tensor:
    """The photos that `photos` wrote, 4×3×H×W in [0, 1]."""
    return torch.stack([ap.load_image(FOLDER / f"{name}{k}.png") for k in range(1, 5)])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("photos", "learn"))
    {"photos": photos, "learn": learn}[parser.parse_args().what]()
