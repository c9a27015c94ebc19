"""What smaller budgets leave after purification, and where AntiPure looks, on the sweep's people.

    python -m tools.study.budgets run      # data/results/budgets.jsonl, resumable; about 40 minutes of a core
    python -m tools.study.budgets table

Every protection of the main tables has its setting of the study, with steps that are as large a part of the
budget. AntiPure is also tried with crops at random places in each step, instead of GrIDPure's own tiles.
Nothing is chosen by these figures. The people and the figures are the sweep's.
"""

from collections.abc import Iterator
from pathlib import Path

from antipure_lib.benchmark.study import PAPER, TUNED
from tools.study.lines import append, read, run_or_table
from tools.study.sweep import OUT as SWEEP
from tools.study.sweep import STEPS, arguments, make_world, measure, print_rows

OUT = SWEEP.with_name("budgets.jsonl")
BUDGETS = (4, 8, 16)  # in steps of 1/255
PLACES = (dict(tiles=5), dict(tiles=10))
COLUMNS = ("latent_after", "survival", "psnr_after", "psnr_in", "lpips_in")


def settings() -> Iterator[tuple[str, float, dict]]:
    """(protection, budget in steps of 1/255, options) of every row, in its order."""
    for budget in BUDGETS:
        for name in [name for name in PAPER if name != "none"]:
            own = TUNED.get(name, {})
            size = own.get("step_size", 1 / 255) * budget / BUDGETS[-1]
            yield name, budget, own | dict(step_size=size) if "step_size" in arguments(name) else own
    for place in PLACES:
        yield "antipure", BUDGETS[-1], TUNED["antipure"] | place


def run(out: Path, names: list[str] | None = None) -> None:
    """Measure the settings that `out` doesn't hold yet, one line each; names: of these protections alone."""
    done = [(row["protection"], row["budget"], row["options"]) for row in read(out, "protection")]
    world = make_world()
    for name, budget, options in settings():
        if (name, budget, options) in done or name not in (names or [name]):
            continue
        found = measure(name, options, world, budget / 255, STEPS)
        append(out, dict(protection=name, budget=budget, options=options) | found, show=True)


def table(path: Path) -> None:
    """Every row, protection by protection; budgets in steps of 1/255."""
    rows = sorted(read(path, "protection"), key=lambda row: (row["protection"], row["budget"]))
    print_rows(rows, ("protection", "budget"), COLUMNS)


if __name__ == "__main__":
    parser = run_or_table(__doc__, OUT)
    parser.add_argument("--protect", nargs="+", metavar="NAME", help="default: all")
    given = parser.parse_args()
    run(given.out, given.protect) if given.what == "run" else table(given.out)
