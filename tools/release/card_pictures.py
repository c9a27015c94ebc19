"""The pictures of the cards: what each model makes, and how its loss fell; all the people.

python -m tools.release.card_pictures      # writes samples.png and loss.png beside each card in data/models/,
                                   # people.jpg beside that in data/faces/
"""

import csv
from pathlib import Path

import matplotlib.pyplot as plt
import torch

import antipure_lib as ap

DATA = Path(__file__).resolve().parents[2] / "data"
MODELS = DATA / "models"
PROMPTS = (
    "a photo of a person",
    "a photo of a person with long blond hair, green background",
    "a photo of a person with short black hair, glasses, smiling, blue background",
)


def save(figure: plt.Figure, path: Path) -> None:
    figure.savefig(path, dpi=100)
    plt.close(figure)
    print(path)


def losses(folder: Path, names: tuple[str, ...]) -> plt.Figure:
    """The training losses that the card's CSV files hold, on a logarithmic scale."""
    figure, axes = plt.subplots(
        1, len(names), figsize=(4 * len(names), 2.6), squeeze=False, layout="constrained"
    )
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
    """Every held-out photo, a row a person, in a white grid: 3×H×W."""
    rows = [torch.nn.functional.pad(ap.load_faces(name), [margin] * 4, value=1) for name in ap.identities()]
    return torch.cat([torch.cat(list(row), 2) for row in rows], 1)


def main() -> None:
    ap.save_image(people(), DATA / "faces" / "people.jpg", lossy=True)
    crops = samples_of_ddpm()
    save(ap.show_rows({"": crops[:8], " ": crops[8:]}), MODELS / "ddpm" / "samples.png")
    save(losses(MODELS / "ddpm", ("loss.csv",)), MODELS / "ddpm" / "loss.png")
    pipe = ap.load_stable_diffusion()
    rows = {}
    for prompt in PROMPTS:
        name = prompt.replace(" with", "\nwith").replace(", ", ",\n")
        rows[name] = ap.generate(pipe, prompt, n=8)
    save(ap.show_rows(rows), MODELS / "sd" / "samples.png")
    save(losses(MODELS / "sd", ("loss_vae.csv", "loss_unet.csv")), MODELS / "sd" / "loss.png")


if __name__ == "__main__":
    main()
