"""What a balanced step costs and leaves when the terms' sizes are seldom measured; data/results/balance.json.

    python -m tools.study.balance time     # the price of a step; minutes of one core
    python -m tools.study.balance run      # survival after GrIDPure 20 and 2 x 20; resumable, an hour
    python -m tools.study.balance table

"each": balance="equal" with sizes measured in each step. "seldom": as the library does it. Survival is
measured on tuning people. Steps are timed by turns in one process with one thread, in processor seconds.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, median, stdev

import torch

from antipure_lib import PGDState, fast, gridpure_steps, load_ddpm, pgd, quantise, quantise_within
from antipure_lib.core.antipure import antipure_loss
from antipure_lib.runtime.unet import sample_size, view
from tools import command_line
from tools.study.lines import write_json
from tools.study.tuning import rendered

OUT = Path(__file__).resolve().parents[2] / "data/results/balance.json"
PEOPLE = range(8504, 8508)  # the rule was chosen on others
ETA = 16 / 255
WEIGHTS = {"ddpm": 0.1, "pfg": 0.5, "etg": 0.5}
PRESETS = {"fast": fast(ETA), "default": {"eta": ETA, "momentum": 0.9}}
VARIANTS = {
    "sum": {"balance": "sum"},
    "each": {"balance": "equal", "measure_every": 1},
    "seldom": {"balance": "equal", "measure_every": 10},
}
ITERATIONS = (20, 40)


def ascend(ddpm, x: torch.Tensor, variant: str, **options) -> Iterator[PGDState]:
    """AntiPure's ascent, x: N×3×H×W in [0, 1]."""
    ddpm.unet = view(ddpm.unet)
    loss = antipure_loss(ddpm, tuple(x.shape[-2:]), one_call=variant == "sum")
    return pgd(loss, x, weights=WEIGHTS, **options | VARIANTS[variant])


def purified(ddpm, x: torch.Tensor) -> list[torch.Tensor]:
    """What GrIDPure makes of the images, after each of ITERATIONS."""
    states = enumerate(gridpure_steps(ddpm, x, rounds=2), 1)
    return [quantise(state.x) for n, state in states if n in ITERATIONS]


def measure_survival(results: dict) -> None:
    """Add the rows that `results` doesn't hold yet, and write them after each person."""
    ddpm = load_ddpm(dtype=torch.float32)
    done = {(row["person"], row["preset"]) for row in results["rows"]}
    for preset, person in ((preset, person) for preset in PRESETS for person in PEOPLE):
        if (person, preset) in done:
            continue
        x = rendered(person, 5, 2 * sample_size(ddpm))[4:]
        clean, row = purified(ddpm, x), {"person": person, "preset": preset}
        for variant in ("each", "seldom"):
            *_, state = ascend(ddpm, x, variant, **PRESETS[preset])
            protected = quantise_within(state.x_adv, x, ETA)
            left = zip(purified(ddpm, protected), clean, strict=True)
            row[variant] = [round(((a - b).norm() / (protected - x).norm()).item(), 4) for a, b in left]
        results["rows"].append(row)
        write_json(OUT, results)


def measure_time(results: dict, rounds: int = 9) -> None:
    """A step's price over the plain sum's: the mean of the first 10 steps, of 100, and of each kind."""
    ddpm = load_ddpm(dtype=torch.float32)
    x = rendered(PEOPLE[0], 5, 2 * sample_size(ddpm))[4:]
    runs = {name: ascend(ddpm, x, name, steps=10**6) for name in VARIANTS}
    for name, first in {"sum": 1, "each": 1, "seldom": 16}.items():  # the next that measures is step 26
        for _ in range(first):
            next(runs[name])
    turns = [{name: seconds(run) for name, run in runs.items()} for _ in range(rounds)]
    ratios = {name: [turn[name] / turn["sum"] for turn in turns] for name in ("each", "seldom")}
    kinds = {"a step that measures": (1, 1), "a step between": (0, 1), "fast": (4, 10), "default": (13, 100)}
    results["price"] = {}
    for kind, (measuring, steps) in kinds.items():
        pairs = zip(ratios["each"], ratios["seldom"], strict=True)
        price = sorted((measuring * a + (steps - measuring) * b) / steps for a, b in pairs)
        results["price"][kind] = [round(value, 3) for value in (median(price), price[0], price[-1])]
    write_json(OUT, results)


def seconds(run: Iterator[PGDState]) -> float:
    """Processor seconds of one step."""
    began = time.process_time()
    next(run)
    return time.process_time() - began


def table(results: dict) -> None:
    """Prices, and survival with its ratio to sizes measured in each step."""
    for kind, (middle, low, high) in results.get("price", {}).items():
        print(f"{kind:22}{middle:6.2f} of a plain sum's step ({low:.2f}-{high:.2f})")
    for preset in PRESETS:
        rows = [row for row in results["rows"] if row["preset"] == preset]
        for k, n in enumerate(ITERATIONS if len(rows) > 1 else ()):
            each, seldom = ([row[name][k] for row in rows] for name in ("each", "seldom"))
            ratios = [b / a for a, b in zip(each, seldom, strict=True)]
            what = f"{preset}, {n} iterations, {len(rows)} people: {mean(each):.3f} → {mean(seldom):.3f}"
            print(f"{what}, ratio {mean(ratios):.3f} ± {stdev(ratios):.3f}")


if __name__ == "__main__":
    parser = command_line(__doc__)
    parser.add_argument("what", choices=("time", "run", "table"))
    what = parser.parse_args().what
    torch.set_num_threads(1)
    known = json.loads(OUT.read_text()) if OUT.exists() else {"rows": []}
    {"time": measure_time, "run": measure_survival, "table": table}[what](known)
