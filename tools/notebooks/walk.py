"""Run notebooks from top to bottom with papermill: `python -m tools.notebooks.walk`.

Papermill and its relatives are imported where they are used: the command line starts without them.
"""

import argparse
import ast
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from fractions import Fraction
from pathlib import Path
from typing import Any

from tools.notebooks.pages import minutes, to_html, write_index

NOTEBOOKS = Path("notebooks")
OUT = Path("build/walk")
TIMEOUT = 1800  # seconds for one cell; a slow machine needs several times the two-core figures
START_TIMEOUT = 300  # seconds for a kernel to answer; a busy machine takes long


class NotebookError(Exception):
    """A notebook that is missing, doesn't know a parameter, or fails; the message names it and the cell."""


def walk(
    notebooks: Sequence[str | os.PathLike],
    out_dir: str | os.PathLike = OUT,
    parameters: Mapping[str, Any] | None = None,
    timeout: int = TIMEOUT,
    at_once: int = 1,
) -> Path:
    """Execute notebooks, telling how far it is, and return the index page's path.

    at_once: how many run side by side, in processes that share the cores; the other arguments as of
    run_notebook. Every parameter is checked before the first notebook starts.
    Raises NotebookError for the first notebook that fails; finished pages stay, and the index links them.
    """
    paths, out_dir = [Path(notebook) for notebook in notebooks], Path(out_dir)
    if not paths:
        raise NotebookError(f"no notebook in {NOTEBOOKS.absolute()}; run in the project's folder or name one")
    for path in paths:
        check_parameters(path, parameters or {})
    start = time.monotonic()
    if at_once > 1:
        print(f"{len(paths)} notebooks, {at_once} at once ...", flush=True)
    for number, (path, executed, seconds) in enumerate(
        _executed(paths, out_dir, parameters, timeout, at_once), 1
    ):
        index = write_index(out_dir)
        took, total = minutes(seconds), minutes(time.monotonic() - start)
        page = executed.with_suffix(".html")
        print(f"[{number}/{len(paths)}] {path} done in {took} ({total} so far): {page}", flush=True)
    return index


def _executed(paths, out_dir, parameters, timeout, at_once) -> Iterator[tuple[Path, Path, float]]:
    """Each notebook, its executed copy and its seconds, as they are finished."""
    if at_once == 1:
        for number, path in enumerate(paths, 1):
            print(f"[{number}/{len(paths)}] {path} ...", flush=True)
            yield _timed(path, out_dir, parameters, timeout)
        return
    threads = str(max(1, (os.cpu_count() or 1) // at_once))
    # spawn: a forked child of a process with running threads can hang
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(at_once, context, _share_cores, (threads,)) as pool:
        runs = [pool.submit(_timed, path, out_dir, parameters, timeout) for path in paths]
        try:
            for run in as_completed(runs):
                yield run.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _timed(path, out_dir, parameters, timeout) -> tuple[Path, Path, float]:
    start = time.monotonic()
    executed = run_notebook(path, out_dir, parameters, timeout)
    return path, executed, time.monotonic() - start


def _share_cores(threads: str) -> None:
    os.environ.setdefault("OMP_NUM_THREADS", threads)  # for the kernels; the user's own choice stays


def run_notebook(
    path: str | os.PathLike,
    out_dir: str | os.PathLike = OUT,
    parameters: Mapping[str, Any] | None = None,
    timeout: int = TIMEOUT,
) -> Path:
    """Execute one notebook; write out_dir/NAME.ipynb and its page NAME.html, and return the former's path.

    parameters: new values for names of the notebook's `parameters` cell. timeout: seconds for one cell.
    Cells run in the notebook's own folder. Both files appear only if every cell succeeds.
    Raises NotebookError for a missing file, an unknown parameter, a failing cell, a timeout, a dead kernel.
    """
    import nbformat
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from nbconvert.filters import strip_ansi

    path, out_dir = Path(path), Path(out_dir)
    alone = multiprocessing.parent_process() is None  # two progress bars would write over each other
    check_parameters(path, parameters or {})
    out_dir.mkdir(parents=True, exist_ok=True)
    if out_dir.samefile(path.parent):
        raise NotebookError(
            f"{path}: its executed copy would overwrite it; choose a folder other than {out_dir}"
        )
    with tempfile.TemporaryDirectory(dir=out_dir, prefix=".walk-") as scratch:
        executed = Path(scratch, path.name).resolve()
        try:
            papermill.execute_notebook(
                path,
                executed,
                parameters=dict(parameters or {}),
                kernel_name="python3",  # the kernel of this interpreter's environment
                cwd=path.parent,
                execution_timeout=timeout,
                start_timeout=START_TIMEOUT,
                extra_arguments=["--log-level=ERROR"],  # the kernel's own warnings are none of the reader's
                progress_bar={"desc": path.stem, "leave": False} if alone else False,
            )
        except papermill.PapermillExecutionError as error:
            reason = f"failed with {error.ename}: {error.evalue}\n" + strip_ansi("\n".join(error.traceback))
            raise NotebookError(f"{path}: {_last_cell(executed)} {reason}") from error
        except CellTimeoutError as error:
            reason = f"took longer than {timeout} s; allow more (--timeout)"
            raise NotebookError(f"{path}: {_last_cell(executed)} {reason}") from error
        except DeadKernelError as error:
            reason = "ended the kernel; most likely the memory ran out"
            raise NotebookError(f"{path}: {_last_cell(executed)} {reason}") from error
        except RuntimeError as error:  # jupyter_client's, of a kernel that doesn't start
            raise NotebookError(f"{path}: {error}; is ipykernel installed here?") from error
        page = executed.with_suffix(".html")
        page.write_text(to_html(nbformat.read(executed, as_version=4), path, out_dir), encoding="utf-8")
        for file in (page, executed):
            os.replace(file, out_dir / file.name)
    return out_dir / path.name


def check_parameters(path: str | os.PathLike, parameters: Mapping[str, Any]) -> None:
    """Refuse what papermill would only warn of: a name that the notebook's `parameters` cell doesn't define.

    Raises NotebookError for an unknown name, text in place of a number, and a file that isn't a notebook.
    """
    import nbformat
    import papermill

    if not Path(path).is_file():
        raise NotebookError(f"{path}: no such notebook (looked from {Path.cwd()})")
    try:
        notebook = nbformat.read(path, as_version=4)
        if parameters and "kernelspec" not in notebook.metadata:  # papermill asks it for the language
            raise NotebookError(f"{path}: names no kernel; open it in Jupyter, choose Python 3 and save it")
        known = papermill.inspect_notebook(path) if parameters else {}
    except (ValueError, LookupError, AttributeError, nbformat.ValidationError) as error:
        raise NotebookError(f"{path}: can't be read as a notebook ({error})") from error
    for name, value in parameters.items():
        if name not in known:
            names = ", ".join(known) or "none: no cell is tagged 'parameters'"
            raise NotebookError(f"{path}: unknown parameter {name}; the known ones are {names}")
        default = parse_value(known[name]["default"])
        if isinstance(value, str) and not isinstance(default, str | None):
            raise NotebookError(f"{path}: parameter {name} can't be '{value}'; its default is {default!r}")


def parse_value(text: str) -> Any:
    """A Python literal (3, 0.5, False, 'p02', None), a fraction (8/255), or else the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        pass
    try:
        return float(Fraction(text.replace(" ", "")))
    except (ValueError, ZeroDivisionError):
        return text


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status. argv: its words; by default those of this process."""
    summary = "Run notebooks from top to bottom and make pages of them."
    parser = argparse.ArgumentParser(prog="python -m tools.notebooks.walk", description=summary)
    add = parser.add_argument
    add("notebooks", nargs="*", metavar="NOTEBOOK", help="default: all in notebooks/")
    add("--out", default=OUT, metavar="DIR", help="default: %(default)s")
    of_cell = "value for a name of the notebook's parameters cell, such as -p ETA 16/255; may be repeated"
    add(
        "-p", dest="parameters", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help=of_cell
    )
    add(
        "--at-once", type=int, metavar="N", help="notebooks side by side, default: two if there are two cores"
    )
    add(
        "--timeout", type=int, default=TIMEOUT, metavar="S", help="seconds for one cell, default: %(default)s"
    )
    args = parser.parse_args(argv)
    notebooks = args.notebooks or sorted(NOTEBOOKS.glob("*.ipynb"))
    parameters = {name: parse_value(value) for name, value in args.parameters}
    try:
        for option, value in (("--timeout", args.timeout), ("--at-once", args.at_once)):
            if value is not None and value < 1:
                raise NotebookError(f"{option} must be 1 or more, got {value}")
        at_once = min(args.at_once or min(2, os.cpu_count() or 1), len(notebooks) or 1)
        index = walk(notebooks, args.out, parameters, args.timeout, at_once)
    except (NotebookError, OSError) as error:  # such as a folder that can't be written
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"Open {index.resolve()}")
    return 0


def _last_cell(executed: Path) -> str:
    """Name the cell that papermill started last, by its number and its first line of code."""
    import nbformat

    found = nbformat.read(executed, as_version=4).cells if executed.exists() else []
    cells = [cell for cell in found if cell.cell_type == "code"]
    started = [n for n, cell in enumerate(cells, 1) if cell.metadata.get("papermill", {}).get("start_time")]
    if not started:
        return "before its first cell it"
    first_line = cells[started[-1] - 1].source.strip().partition("\n")[0]
    return f"code cell {started[-1]} ({first_line})"


if __name__ == "__main__":
    sys.exit(main())
