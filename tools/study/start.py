"""What chapter 00 shows: one person's photos under three protections, and what LoRA learns from them.

    python -m tools.study.start photos     # data/start/: protected photos of PERSON, and the same purified
    python -m tools.study.start learn      # rates.json and faces.png: pass rates and generated faces

PERSON was chosen for clarity: of the study's eight people this one is learned best from clean photos. Chapter
00 says so, and shows the others. AdvDM has the study's setting, AntiPure and the workflow attack have --fast.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import torch

import antipure_lib as ap
from antipure_lib.benchmark.study import TUNED
from antipure_lib.photos.pictures import atomic
from tools import command_line
from tools.study.lines import write_json

FOLDER = Path(__file__).resolve().parents[2] / "data/start"
PERSON, ETA, ITERATIONS, SAMPLES = "p06", 16 / 255, 40, 16
METHODS = {
    "advdm": dict(steps=12, **TUNED["advdm"]),  # four draws of noise per step, so 50 calls of the model
    "antipure": ap.fast(ETA),
    "workflow": ap.fast(ETA),
}
TITLES = {"none": "clean", "advdm": "AdvDM", "antipure": "AntiPure", "workflow": "workflow"}
PROMPT = "a photo of sks person"


def photos(names: list[str]) -> None:
    """Protect the person's set B, then purify; what is there already stays."""
    x, models = ap.load_faces(PERSON, "B"), dict(ddpm=ap.load_ddpm(), pipe=ap.load_stable_diffusion())
    for name in names:
        if not (FOLDER / f"{name}_posted4.png").exists():
            options = dict(eta=ETA) | METHODS.get(name, {})
            write(name, "posted", ap.protect(name, x, **models, **options))
        posted = stored(name, "posted")
        print(f"{name}: LPIPS {ap.Judge().lpips(x, posted).mean():.3f}", flush=True)
        if not (FOLDER / f"{name}_purified4.png").exists():
            write(name, "purified", ap.gridpure(models["ddpm"], posted, iterations=ITERATIONS, seed=0))


def write(name: str, stage: str, images: torch.Tensor) -> None:
    """Write four photos, 4×3×H×W in [0, 1]."""
    for k, photo in enumerate(images, 1):
        ap.save_image(photo, FOLDER / f"{name}_{stage}{k}.png")


def learn() -> None:
    """Learn each set as posted and as purified; write pass rates and a picture of generated faces."""
    judge, pipe = ap.Judge(), ap.load_stable_diffusion()
    person, dtype = judge.embed(ap.load_faces(PERSON, "C")), ap.pick_dtype(ap.pick_device())
    rates, faces = {}, {}
    for name, title in TITLES.items():
        for stage in ("posted", "purified"):
            model = ap.lora(pipe, stored(name, stage), seed=0, dtype=dtype)
            images = ap.generate(model, PROMPT, n=SAMPLES, seed=0, dtype=dtype)
            rates[f"{title}, {stage}"] = judge.same_person(judge.embed(images), person)
            faces[name, stage] = images[:4]
            print(f"{title}, {stage}: pass rate {rates[f'{title}, {stage}']:.2f}", flush=True)
    write_json(FOLDER / "rates.json", rates)
    rows = {TITLES[name]: torch.cat([faces[name, "posted"], faces[name, "purified"]]) for name in TITLES}
    titles = ["as posted", "", "", "", "purified", "", "", ""]
    figure = ap.show_rows(rows, column_titles=titles, scale=1.2)
    with atomic(FOLDER / "faces.png") as part:
        figure.savefig(part, dpi=100, format="png")
    plt.close(figure)


def stored(name: str, stage: str) -> torch.Tensor:
    """The photos that `photos` wrote, 4×3×H×W in [0, 1]."""
    return torch.stack([ap.load_image(FOLDER / f"{name}_{stage}{k}.png") for k in range(1, 5)])


if __name__ == "__main__":
    parser = command_line(__doc__)
    parser.add_argument("what", choices=("photos", "learn"))
    parser.add_argument("--names", nargs="+", choices=TITLES, default=list(TITLES), help="for photos")
    given = parser.parse_args()
    photos(given.names) if given.what == "photos" else learn()
