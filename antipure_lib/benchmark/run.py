"""Running a grid of cells: what a table lacks is made, by one process or several, and appended to it."""

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from ..judges.faces import Judge
from ..models.checkpoints import load_ddpm, load_stable_diffusion
from ..runtime.processes import Processes
from .cells import Cell, World, run_cell, setup
from .rows import KEYS, append_row, read_rows, write_rows


def benchmark(
    cells: Sequence[Cell],
    out: str | os.PathLike,
    models: dict[str, Any],
    workers: int = 1,
    group: Processes = Processes(),  # noqa: B008  (immutable)
) -> Iterator[dict[str, object]]:
    """Run the cells that `out` doesn't hold yet, append each row as it is finished, and yield it.

    models: names and settings as `make_world` takes them. workers: processes, which share the cores.
    group: the processes of `accelerate launch` (see `processes`), each of which runs and yields its share;
    they need `out` and the cache in common.
    At the end the table is put into the plan's order, so that it doesn't depend on who finished first. Raises
    ValueError where `out` holds rows with another budget, number of steps, models or options.
    """
    cells = list(dict.fromkeys(cells))
    done = finished_rows(out)
    _check(out, done, cells, models, workers)
    missing = [cell for cell in cells if tuple(cell) not in done]
    group.wait()  # all have read the same table before anyone writes
    if Path(out).exists() and group.main:
        write_rows(out, done.values())  # without a line that a crash cut off
    group.wait()
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    for row in _finished(group.share(missing), models, workers):
        with FileLock(_lock(out)):
            append_row(out, row)
        yield row
    group.wait()
    if group.main:
        done = finished_rows(out)
        planned = [tuple(cell) for cell in cells]
        others = [key for key in done if key not in set(planned)]
        write_rows(out, [done[key] for key in planned + others])
        _lock(out).unlink(missing_ok=True)


def finished_rows(out: str | os.PathLike) -> dict[tuple, dict[str, object]]:
    """The rows that a table holds, by cell; none where there is no file yet."""
    rows = read_rows(out) if Path(out).exists() else []
    return {tuple(row[name] for name in KEYS): row for row in rows}


def make_world(
    ddpm: str, pipe: str, cache: str | os.PathLike, device: str | None = None, **settings: Any
) -> World:
    """Load the models by name; settings are World's. device: None chooses (see `pick_device`)."""
    models = load_ddpm(ddpm, device), load_stable_diffusion(pipe, device)
    return World(*models, Judge(), Path(cache), **settings)


def _finished(cells, models, workers) -> Iterator[dict[str, object]]:
    if workers == 1:
        world = make_world(**models) if cells else None
        for cell in cells:
            yield run_cell(cell, world)
        return
    # spawn: a forked child of a process with running torch threads hangs
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, _start, (models, workers)) as pool:
        yield from pool.imap_unordered(_run, cells)


def _start(models, workers) -> None:
    global _world
    torch.set_num_threads(_threads(workers))
    _world = make_world(**models)


def _threads(workers: int) -> int:
    """What each of several processes gets of the cores that this one may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // workers)


def _run(cell) -> dict[str, object]:
    return run_cell(Cell(*cell), _world)


def _lock(out) -> Path:
    """Held while a row is appended: two processes' lines mustn't mix."""
    return Path(out).with_name(f".{Path(out).name}.lock")


def _check(out, done, cells, models, workers) -> None:
    """Rows that are there were made as the planned ones are going to be."""
    for row in done.values():
        for name in ("eta", "steps"):
            if abs(row[name] - models[name]) > 1e-6:
                there, here = f"{row[name]:g}", f"{models[name]:g}"
                raise ValueError(
                    f"{out} holds rows with {name}={there}, not {here}; name another file with --out"
                )
    if not (done and cells):
        return
    before = torch.get_num_threads()
    try:
        if workers > 1:
            torch.set_num_threads(_threads(workers))
        world = make_world(**models)
        planned = {cell.protect: setup(cell, world) for cell in cells}
    finally:
        torch.set_num_threads(before)
    common = next(iter(planned.values())).partition("-")[0]
    for row in done.values():
        wanted = planned.get(row["protect"])
        if row["setup"] != wanted if wanted else row["setup"].partition("-")[0] != common:
            raise ValueError(
                f"{out} holds rows of other models, arguments or threads than these, such as those of "
                f"'{row['protect']}'; name another file with --out"
            )
