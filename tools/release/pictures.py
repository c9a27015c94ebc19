"""The pictures of the cards, written next to them: `python -m tools.release.pictures`.

They show what each model makes, how its loss fell, and all the people.
"""

import csv
from pathlib import Path

import matplotlib.pyplot as plt
import torch

import antipure_lib as ap
from antipure_lib.photos.pictures import atomic

ROOT = Path(__file__).resolve().parents[2]
MODELS, FACES = ROOT / "data/models", ROOT / "data/faces"
PROMPTS = {
    "a photo of a person": "a photo of a person",
    "long blond hair,\ngreen background": "a photo of a person with long blond hair, green background",
    "short black hair,\nglasses, smiling,\nblue background": (
        "a photo of a person with short black hair, glasses, smiling, blue background"
    ),
}


def cards() -> None:
    ap.save_image(people(), FACES / "people.jpg", lossy=True)
    crops = samples_of_ddpm()
    save(ap.show_rows({"": crops[:8], " ": crops[8:]}), MODELS / "ddpm/samples.png")
    save(losses(MODELS / "ddpm", "loss.csv"), MODELS / "ddpm/loss.png")
    pipe = ap.load_stable_diffusion()
    rows = {name: ap.generate(pipe, prompt, n=8) for name, prompt in PROMPTS.items()}
    save(ap.show_rows(rows), MODELS / "sd/samples.png")
    save(losses(MODELS / "sd", "loss_vae.csv", "loss_unet.csv"), MODELS / "sd/loss.png")


def save(figure: plt.Figure, path: Path) -> None:
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=100, format="png")
    plt.close(figure)
    print(path)


def losses(folder: Path, *names: str) -> plt.Figure:
    """The training losses that the card's CSV files hold, on a logarithmic scale."""
    size = (4 * len(names), 2.6)
    figure, axes = plt.subplots(1, len(names), figsize=size, squeeze=False, layout="constrained")
    for axis, name in zip(axes[0], names, strict=True):
        with (folder / name).open() as file:
            step, loss, _ = zip(*csv.reader(file), strict=True)
        axis.plot([float(k) for k in step], [float(value) for value in loss], color=ap.COLOURS[0])
        axis.set(xlabel="step", ylabel="loss", yscale="log", title=name)
        axis.grid(alpha=0.3, which="both")
    return figure


@torch.no_grad()
def samples_of_ddpm(n: int = 16) -> torch.Tensor:
    """Crops out of pure noise, by all 1000 ancestral steps."""
    ddpm = ap.load_ddpm(dtype=torch.float32)
    (generator,) = ap.image_generators(0, 1)
    x_t = ap.randn((n, 3, ap.sample_size(ddpm), ap.sample_size(ddpm)), generator)
    for t in reversed(range(len(ddpm.scheduler.alphas_cumprod))):
        noise = ap.randn(x_t.shape, generator)
        x_t = ap.reverse_step(x_t, ap.predict_eps(ddpm, x_t, t), t, ddpm.scheduler, noise)
    return ap.from_model(x_t)


def people(margin: int = 2) -> torch.Tensor:
    """Every held-out photo, one row per person, in a white grid: 3×H×W."""
    rows = [torch.nn.functional.pad(ap.load_faces(name), [margin] * 4, value=1) for name in ap.identities()]
    return torch.cat([torch.cat(list(row), 2) for row in rows], 1)


if __name__ == "__main__":
    cards()
