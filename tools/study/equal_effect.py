"""How soon other step rules reach what the paper's recipe, or a long run of ours, leaves after purification.

    python -m tools.study.equal_effect run      # data/results/equal_effect.jsonl, resumable; half an hour
    python -m tools.study.equal_effect table    # the soonest first

The recipe is 100 sign steps of 1/255 on the plain sum. The others weight the terms as the library does and
differ in their steps: signs, momentum, four draws of noise averaged, sizes that are halved. Every run is
purified and measured after several numbers of steps. It has reached a goal if a latent model sees as much of
its perturbation after purification, and as much is left in pixels. Seconds are the processor's for the ascent
alone, of one run on one machine. The tuning people are the sweep's.
"""

import time
from collections.abc import Iterator
from pathlib import Path

from antipure_lib import quantise_within
from antipure_lib.protections.registry import protect_steps
from tools.study.lines import append, read, run_or_table
from tools.study.sweep import OUT as SWEEP
from tools.study.sweep import arguments, effect, make_world

OUT = SWEEP.with_name("equal_effect.jsonl")
ETA = 16 / 255
AVERAGED = dict(noise_samples=4)
GOALS = (("R", ("the paper's recipe", 100)), ("L", ("momentum", 100)))
RUNS = {
    "random signs": ("random", {}, None, (1,)),
    "the paper's recipe": ("antipure-paper", {}, 1, (25, 50, 100)),
    "signs": ("antipure", dict(momentum=0.0), 1, (5, 10, 20, 40)),
    "signs, 4/255": ("antipure", dict(momentum=0.0), 4, (3, 5, 10, 20)),
    "momentum": ("antipure", dict(momentum=0.9), 1, (5, 10, 20, 40, 100)),
    "momentum, 4/255": ("antipure", dict(momentum=0.9), 4, (3, 5, 10, 20)),
    "momentum, averaged": ("antipure", dict(momentum=0.9) | AVERAGED, 4, (2, 3, 5, 10)),
} | {
    f"halving{text}, {n} steps": ("antipure", dict(momentum=momentum), None, (n,))
    for text, momentum in (("", 0.0), (" with momentum", 0.75))
    for n in (5, 10, 20)
}


def halving(eta: float, steps: int) -> list[float]:
    """Step sizes for `pgd` that begin at 2η and are halved at APGD's checkpoints, [0, 1] units.

    (Croce and Hein 2020, arXiv 2003.01690, section 3.1.) APGD halves only where the loss has stopped growing.
    Here it always halves: a loss with new noise in each step can't show that.
    """
    checkpoints, percent, gap = [], 22, 22
    while percent < 100:
        checkpoints.append(-(-percent * steps // 100))  # rounded up
        gap = max(gap - 3, 6)
        percent += gap
    return [2 * eta / 2 ** sum(step >= w for w in checkpoints) for step in range(steps)]


def stops(
    protection: str, options: dict, size: int | None, counts: tuple[int, ...], world: dict
) -> Iterator[tuple]:
    """(steps, seconds of ascent, protected photos) of one run at each of its counts."""
    sizes = halving(ETA, counts[-1]) if size is None else size / 255
    options = options | dict(eta=ETA, steps=counts[-1])
    options |= dict(step_size=sizes) if "step_size" in arguments(protection) else {}
    states = protect_steps(protection, world["x"], ddpm=world["ddpm"], **options)
    spent, began = 0.0, time.process_time()
    for state in states:
        spent += time.process_time() - began
        if state.step in counts:
            yield state.step, spent, quantise_within(state.x_adv, world["x"], ETA)
        began = time.process_time()


def run(out: Path) -> None:
    """Measure the runs that `out` doesn't hold yet, one line per stop."""
    done = {row["run"] for row in read(out, "run") if row["steps"] == RUNS[row["run"]][-1][-1]}
    world = make_world()
    for name in [name for name in RUNS if name not in done]:
        for steps, seconds, protected in stops(*RUNS[name], world):
            append(out, dict(run=name, steps=steps, seconds=seconds) | effect(protected, world), show=True)


def table(path: Path) -> None:
    """Every look, the soonest first, with what it has reached by then."""
    rows = list({(row["run"], row["steps"]): row for row in read(path, "run")}.values())
    goals = {mark: next(row for row in rows if (row["run"], row["steps"]) == goal) for mark, goal in GOALS}
    for mark, goal in goals.items():
        print(f"{mark} = reaches {goal['run']}, {goal['steps']} steps")
    print(f"{'reaches':8}{'seconds':>8}{'steps':>6}{'latents':>9}{'PSNR':>7}{'LPIPS':>8}  run")
    for row in sorted(rows, key=lambda row: row["seconds"]):
        marks = "".join(mark for mark, goal in goals.items() if reaches(row, goal))
        figures = f"{row['latent_after']:9.3f}{row['psnr_after']:7.2f}{row['lpips_in']:8.3f}"
        print(f"{marks:8}{row['seconds']:8.1f}{row['steps']:6}{figures}  {row['run']}")


def reaches(row: dict, goal: dict) -> bool:
    """Whether as much is left after purification, to a latent model and in pixels."""
    return row["latent_after"] >= goal["latent_after"] and row["psnr_after"] <= goal["psnr_after"]


if __name__ == "__main__":
    given = run_or_table(__doc__, OUT).parse_args()
    run(given.out) if given.what == "run" else table(given.out)
