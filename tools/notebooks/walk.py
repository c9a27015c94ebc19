"""Run notebooks with papermill, and make the site of them: `python -m tools.notebooks.walk`.

Each stage prints a line. What papermill, the kernels and Sphinx print goes to walk.log in the same folder.
"""

import argparse
import logging
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbconvert.filters import strip_ansi

from tools.notebooks.parameters import new_values
from tools.site.build import SiteError, build_site

NOTEBOOKS = Path("notebooks")
OUT = Path("build/walk")
TIMEOUT = 1800  # seconds for one cell; a slow machine needs several times the two-core figures
START_TIMEOUT = 300  # seconds for a kernel to answer; a busy machine takes long


class NotebookError(Exception):
    """A notebook that is missing, doesn't know a parameter, or fails; the message names it and the cell."""


def walk(
    paths: Sequence[Path],
    out_dir: Path = OUT,
    parameters: Mapping[str, Any] | None = None,
    timeout: int = TIMEOUT,
    at_once: int = 1,
) -> Path:
    """Execute notebooks, printing how far it is, make out_dir/site of all there, and return its first page.

    at_once: how many run at the same time, in processes that share the cores. Others: as of run_notebook.
    Every parameter is checked before the first notebook starts. Finished notebooks stay if a later one fails.
    Raises NotebookError for the first notebook that fails, and SiteError (see `build_site`).
    """
    if not paths:
        raise NotebookError(f"no notebook in {NOTEBOOKS.absolute()}; run in the project's folder or name one")
    for path in paths:
        check(path, out_dir, parameters or {})
    out_dir.mkdir(parents=True, exist_ok=True)
    log, start = out_dir / "walk.log", time.monotonic()
    log.write_text("")
    print(f"{len(paths)} notebooks, {at_once} at once; log: {log}", flush=True)
    # spawn: a forked child of a process with running threads can hang
    setup = (log, str(max(1, (os.cpu_count() or 1) // at_once)))
    with ProcessPoolExecutor(at_once, get_context("spawn"), _start_worker, setup) as pool:
        runs = [pool.submit(run_notebook, path, out_dir, parameters, timeout) for path in paths]
        try:
            for number, run in enumerate(as_completed(runs), 1):
                done = run.result()
                print(f"[{number}/{len(paths)}] {done} after {minutes(time.monotonic() - start)}", flush=True)
        except NotebookError as error:
            raise NotebookError(f"{error}\nThe full log is {log}.") from error
        finally:
            pool.shutdown(cancel_futures=True)
    print("the site of them ...", flush=True)
    # A notebook of one's own may have a broken link; the run isn't lost for that.
    return build_site(out_dir, out_dir / "site", log, strict=False)


def minutes(seconds: float) -> str:
    """Seconds as people say them: 75.4 → '1 min 15 s'."""
    whole = round(seconds)
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


def _start_worker(log: Path, threads: str) -> None:
    """Give a process its share of the cores, and the log for its output; its kernels inherit both."""
    os.environ.setdefault("OMP_NUM_THREADS", threads)  # the user's own choice stays
    file = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(file, sys.stdout.fileno())
    os.dup2(file, sys.stderr.fileno())
    logging.basicConfig(level=logging.INFO)


def run_notebook(
    path: Path, out_dir: Path = OUT, parameters: Mapping[str, Any] | None = None, timeout: int = TIMEOUT
) -> Path:
    """Execute one notebook, write out_dir/NAME.ipynb and return its path.

    parameters: new values for names of the notebook's `parameters` cell. timeout: seconds for one cell.
    Cells run in the notebook's own folder. The file appears only if every cell succeeds.
    Raises NotebookError for a missing file, an unknown parameter, a failing cell, a timeout, a dead kernel.
    """
    values = check(path, out_dir, parameters or {})
    out_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out_dir, prefix=".walk-") as scratch:
        executed = Path(scratch, path.name).resolve()
        try:
            papermill.execute_notebook(
                path,
                executed,
                parameters=values,
                kernel_name="python3",  # the kernel of this interpreter's environment
                language="python",
                cwd=path.parent,
                execution_timeout=timeout,
                start_timeout=START_TIMEOUT,
                extra_arguments=["--log-level=ERROR"],  # readers of a page don't need the kernel's warnings
                progress_bar=False,
            )
        except (papermill.PapermillExecutionError, CellTimeoutError, RuntimeError) as error:
            raise NotebookError(f"{path}: {_last_cell(executed)}{_reason(error, timeout)}") from error
        os.replace(executed, out_dir / path.name)
    return out_dir / path.name


def _last_cell(executed: Path) -> str:
    """Name the cell that papermill started last, by its number and its first line of code."""
    cells = nbformat.read(executed, as_version=4).cells if executed.exists() else []
    code = [cell for cell in cells if cell.cell_type == "code"]
    started = [cell.source.strip() for cell in code if cell.metadata.papermill.start_time]
    return f"code cell {len(started)} ({started[-1].splitlines()[0]}) " if started else ""


def _reason(error: Exception, timeout: int) -> str:
    if isinstance(error, papermill.PapermillExecutionError):
        return f"failed with {error.ename}: {error.evalue}\n" + strip_ansi("\n".join(error.traceback))
    if isinstance(error, CellTimeoutError):
        return f"took longer than {timeout} s; allow more (--timeout)"
    if isinstance(error, DeadKernelError):
        return "ended the kernel; most likely the memory ran out"
    return f"{error}; is ipykernel installed here?"  # jupyter_client's, of a kernel that doesn't start


def check(path: Path, out_dir: Path, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters in the types of the notebook's defaults (see `new_values`).

    Raises NotebookError for a file that isn't a notebook, an unknown name and a value of another type. The
    same goes for an out_dir where the executed copy would replace the notebook.
    """
    if not path.is_file():
        raise NotebookError(f"{path}: no such notebook (looked from {Path.cwd()})")
    if out_dir.resolve() == path.parent.resolve():
        raise NotebookError(f"{path}: its executed copy would overwrite it; choose another folder (--out)")
    try:
        notebook = nbformat.read(path, as_version=4)
    except (ValueError, LookupError, AttributeError, nbformat.ValidationError) as error:
        raise NotebookError(f"{path}: can't be read as a notebook ({error})") from error
    try:
        return new_values(notebook, parameters)
    except ValueError as error:
        raise NotebookError(f"{path}: {error}") from error


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status. argv: its words; by default those of this process."""
    summary = "Run notebooks from top to bottom and make the site of them."
    parser = argparse.ArgumentParser(prog="python -m tools.notebooks.walk", description=summary)
    add = parser.add_argument
    add("notebooks", nargs="*", type=Path, metavar="NOTEBOOK", help="default: all in notebooks/")
    add("--out", type=Path, default=OUT, metavar="DIR", help="default: %(default)s")
    of_cell = "new value for a name of the parameters cell, in its unit there; may be repeated. "
    of_cell += "ETA counts steps of 1/255, so -p ETA 16 is a budget of 16/255"
    add("-p", dest="values", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help=of_cell)
    side_by_side = "notebooks at the same time, default: two if there are two cores"
    add("--at-once", type=int, default=min(2, os.cpu_count() or 1), metavar="N", help=side_by_side)
    a_cell = "seconds for one cell, default: %(default)s"
    add("--timeout", type=int, default=TIMEOUT, metavar="S", help=a_cell)
    args = parser.parse_args(argv)
    notebooks = args.notebooks or sorted(NOTEBOOKS.glob("*.ipynb"))
    try:
        for option, value in (("--timeout", args.timeout), ("--at-once", args.at_once)):
            if value < 1:
                raise NotebookError(f"{option} must be 1 or more, got {value}")
        at_once = min(args.at_once, len(notebooks) or 1)
        index = walk(notebooks, args.out, dict(args.values), args.timeout, at_once)
    except (NotebookError, SiteError, OSError) as error:  # such as a folder that can't be written
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"Open {index.resolve()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
