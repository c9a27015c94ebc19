"""Where the power of perturbations lies; data/results/spectrum.json.

    python -m tools.study.spectrum     # minutes of one core; tuning people

"mean": the mean frequency of δ's power. "low": its share below a quarter cycle per pixel; random signs have
π/16. "grey": its share that is equal in all channels; random signs have a third. "cutoff": of the low-passed
random signs with the same mean frequency; from √½ on nothing is removed. The default of
`random_lowpass_steps` is the mean of AdvDM's and Mist's cutoffs. AntiPure's frequencies are as high as those
of random signs.
"""

from pathlib import Path

import torch

from antipure_lib import load_ddpm, load_stable_diffusion, protect
from antipure_lib.benchmark.study import TUNED
from tools import command_line
from tools.study.lines import write_json
from tools.study.tuning import rendered

OUT = Path(__file__).resolve().parents[2] / "data/results/spectrum.json"
PEOPLE, PHOTOS, ETA = (8500, 8501), 1, 16 / 255
CALLS = 48  # of the model per photo: a setting with four draws per step takes a quarter of the steps
PROTECTIONS = ("random", "advdm", "mist", "antipure")


def frequencies(height: int, width: int) -> torch.Tensor:
    """√(u² + v²) of every coefficient of a two-dimensional transform, in cycles per pixel."""
    v, u = (torch.fft.fftfreq(side, dtype=torch.float64) for side in (height, width))
    return (v[:, None].square() + u.square()).sqrt()


def figures(delta: torch.Tensor) -> dict[str, float]:
    """Mean frequency, share below 1/4 and grey share of perturbations, N×3×H×W."""
    delta = delta.double().contiguous()
    power, f = torch.fft.fft2(delta).abs().square().sum((0, 1)), frequencies(*delta.shape[-2:])
    grey = 3 * delta.mean(1).square().sum() / delta.square().sum()
    low = power[f < 0.25].sum() / power.sum()
    mean = (f * power).sum() / power.sum()
    return {name: round(float(value), 3) for name, value in (("mean", mean), ("low", low), ("grey", grey))}


def matching_cutoff(mean: float, x: torch.Tensor) -> float:
    """The cutoff of low-passed signs on x whose mean frequency is `mean`, to 0.001, by bisection."""
    low, high = 0.02, 0.5**0.5
    while high - low > 5e-4:
        middle = (low + high) / 2
        found = figures(protect("random-lowpass", x, eta=ETA, cutoff=middle) - x)["mean"]
        low, high = (middle, high) if found < mean else (low, middle)
    return round((low + high) / 2, 3)


def measure() -> dict[str, dict[str, float]]:
    """protection → figures of its δ on the tuning people's photos, with the cutoff that matches."""
    x = torch.cat([rendered(person, PHOTOS) for person in PEOPLE])
    models, found = dict(ddpm=load_ddpm(dtype=torch.float32), pipe=load_stable_diffusion()), {}
    grey = torch.full((8, *x.shape[1:]), 0.5)
    for name in PROTECTIONS:
        options = TUNED.get(name, {})
        steps = CALLS // options.get("noise_samples", 1)
        found[name] = figures(protect(name, x, eta=ETA, steps=steps, **models, **options) - x)
        found[name]["cutoff"] = matching_cutoff(found[name]["mean"], grey)
        print(name, found[name], flush=True)
    return found


if __name__ == "__main__":
    command_line(__doc__).parse_args()
    torch.set_num_threads(1)
    values = {"made_by": "python -m tools.study.spectrum", "people": PEOPLE, "photos": PHOTOS}
    write_json(OUT, values | {"protections": measure()})
