"""A grid of cells: what a table lacks is made, by one process or several, and appended to it."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

from accelerate import PartialState
from filelock import FileLock

from ..judges.faces import Judge
from ..models.checkpoints import load_ddpm, load_stable_diffusion
from ..runtime.checks import check_counts, check_path
from ..runtime.digests import weights_digest
from .cells import World, check_cells, run_cell, setup
from .rows import KEYS, Cell, read_rows, write_rows


def make_world(
    ddpm: str, pipe: str, cache: str | os.PathLike, device: str | None = None, **settings: Any
) -> World:
    """Load the models by name. settings: as World has them. device: None chooses (see `pick_device`).

    Raises ValueError for values outside their range and for an unknown model.
    """
    counts = ("steps", "samples", "learning")
    check_counts(**{name: settings[name] for name in counts if settings.get(name) is not None})
    models = {"ddpm": load_ddpm(ddpm, device), "pipe": load_stable_diffusion(pipe, device)}
    parts = {"ddpm": ("unet",), "pipe": ("vae", "unet", "text_encoder")}
    weights = {name: weights_digest(model, parts[name]) for name, model in models.items()}
    return World(**models, judge=Judge(), cache=check_path(cache), weights=weights, **settings)


def benchmark(cells: Sequence[Cell], out: str | os.PathLike, world: World) -> Iterator[dict[str, object]]:
    """Run the cells that `out` doesn't hold yet, add each row as it is finished, and yield it.

    Inside `processes()` each process of a launcher runs and yields its share; all need the same `out` and
    cache. Rows are added in the plan's order. Raises ValueError for unknown names, and if `out` is
    another kind of file or holds rows of other settings.
    """
    check_cells(cells)
    out = check_path(out)
    cells, group = list(dict.fromkeys(cells)), PartialState()
    done = finished_rows(out)
    _check(out, done, cells, world)
    missing = [cell for cell in cells if cell not in done]
    group.wait_for_everyone()  # all have read the same table before anyone writes
    lock = out.with_name(f".{out.name}.lock")  # one process at a time adds its row
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        for cell in missing[group.process_index :: group.num_processes]:
            row = run_cell(cell, world)
            with FileLock(lock):
                done = finished_rows(out) | {cell: row}
                write_rows(out, [done[key] for key in dict.fromkeys([*cells, *done]) if key in done])
            yield row
    finally:  # also when the caller stops early: a process that leaves before the others would end them
        group.wait_for_everyone()
        if group.is_main_process:
            lock.unlink(missing_ok=True)


def finished_rows(out: str | os.PathLike) -> dict[tuple, dict[str, object]]:
    """The rows that a table holds, by cell; none if there is no file yet."""
    rows = read_rows(out) if check_path(out).exists() else []
    return {tuple(row[name] for name in KEYS): row for row in rows}


def _check(out: str | os.PathLike, done: dict[tuple, dict], cells: Sequence[Cell], world: World) -> None:
    """Raises ValueError if the rows that are there were made in another way than the planned ones will be."""
    planned = {}  # (which of the setup's hashes, name of the method) → hash; the first is for all
    for cell in cells:
        planned |= zip(enumerate((None, *cell[:3])), setup(cell, world).split("-"), strict=True)
    for key, row in done.items():
        for name, here in (("eta", world.eta), ("steps", world.steps)):
            if abs(row[name] - here) > 1e-6:
                there = f"{name}={row[name]:g}, not {here:g}"
                raise ValueError(f"{out} holds rows with {there}; name another file with --out")
        there = zip(enumerate((None, *key[:3])), row["setup"].split("-"), strict=False)  # old tables: fewer
        if any(planned.get(place, part) != part for place, part in there):
            raise ValueError(
                f"{out} holds rows of other models, arguments or threads than these, such as those of "
                f"{', '.join(key[:3])}; name another file with --out"
            )
