"""One tournament entry in a process of its own: `python -m antipure_lib.benchmark.entrant FILE FOLDER`.

FOLDER/task.json holds the settings, FOLDER/photos.npz the photos. FILE is imported. Every protection or
purifier that it registers works on them, into FOLDER/results.npz. The limits stop mistakes, not attackers.
"""

import json
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from ..models.checkpoints import load_ddpm, load_stable_diffusion
from ..protections.registry import PROTECTIONS, protect_steps
from ..purifiers.registry import PURIFIERS, purify

opened: list[str] = []  # the judge's photos that an entry tried to read


class Refused(Exception):
    """Why an entry doesn't take part."""


def enter(file: Path, what: str, photos: Mapping, seconds: float, **task) -> tuple[dict[str, dict], dict]:
    """Run an entry's "protections" or "purifiers". Returns name → the keys of photos → N×3×H×W.

    Returns also the names that the entry registers, {"protections": […], "purifiers": […]}.

    photos: (set or protection, person) → N×3×H×W in [0, 1]. task: seed, eta, memory (GiB), ddpm, pipe.
    Raises Refused with the reason: a crash, no entry, too much time, an attempt to read the judge's photos.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "task.json").write_text(json.dumps(task | {"what": what}), encoding="utf-8")
        np.savez(folder / "photos.npz", **{json.dumps(key): x.numpy() for key, x in photos.items()})
        _run([sys.executable, "-m", __name__, str(file), name], folder, seconds)
        if (folder / "opened.json").exists():
            raise Refused(f"read the judge's photos: {json.loads((folder / 'opened.json').read_text())[0]}")
        entries: dict[str, dict] = {}
        with np.load(folder / "results.npz") as stored:
            for key in stored.files:
                name, *which = json.loads(key)
                entries.setdefault(name, {})[tuple(which)] = torch.from_numpy(stored[key])
        return entries, json.loads((folder / "added.json").read_text(encoding="utf-8"))


def _run(command: list[str], folder: Path, seconds: float) -> None:
    """Run a process and all that it starts. Raises Refused when it fails or takes longer."""
    log = folder / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Refused(f"took longer than {seconds:.0f} s") from None
        finally:
            _end(process)
    if process.returncode and not (folder / "opened.json").exists():
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise Refused(f"failed: {lines[-1] if lines else f'status {process.returncode}'}")


def _end(process: subprocess.Popen) -> None:
    """End what still runs."""
    if hasattr(os, "killpg"):
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass  # all have ended
    else:
        process.kill()
    process.wait()


def main(file: Path, folder: Path) -> None:
    """What the process does."""
    task = json.loads((folder / "task.json").read_text(encoding="utf-8"))
    with np.load(folder / "photos.npz") as stored:
        photos = {tuple(json.loads(key)): torch.from_numpy(stored[key]) for key in stored.files}
    models = dict(ddpm=load_ddpm(task["ddpm"]), pipe=load_stable_diffusion(task["pipe"]))
    registry = {"protections": PROTECTIONS, "purifiers": PURIFIERS}
    before = {kind: set(names) for kind, names in registry.items()}
    _limit_memory(task["memory"])
    sys.addaudithook(_forbid_references)
    try:
        runpy.run_path(str(file))
        added = {
            kind: [name for name in names if name not in before[kind]] for kind, names in registry.items()
        }
        if not any(added.values()):
            sys.exit("it registers no new protection and no new purifier")
        work = _protect if task["what"] == "protections" else _purify
        made = {name: work(name, photos, models, task) for name in added[task["what"]]}
    finally:
        if opened:
            (folder / "opened.json").write_text(json.dumps(opened), encoding="utf-8")
    flat = {json.dumps((name, *key)): x for name, results in made.items() for key, x in results.items()}
    np.savez(folder / "results.npz", **flat)
    (folder / "added.json").write_text(json.dumps(added), encoding="utf-8")


def _protect(name: str, photos: dict, models: dict, task: dict) -> dict:
    """Every person's set B, protected."""
    made = {}
    for key in (key for key in photos if key[0] == "B"):
        common = dict(eta=task["eta"], seed=task["seed"], set_a=photos["A", key[1]])
        for state in protect_steps(name, photos[key], **models, **common):
            made[key] = state.x_adv.detach().numpy()
    return made


def _purify(name: str, photos: dict, models: dict, task: dict) -> dict:
    """All photos, purified."""
    return {key: purify(name, x, **models, seed=task["seed"]).numpy() for key, x in photos.items()}


def _limit_memory(gibibytes: float) -> None:
    """Allow this process so much more memory; without effect where the system has no such limit."""
    if sys.platform == "linux":
        import resource

        used = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_DATA, (used + int(gibibytes * 2**30),) * 2)


def _forbid_references(event: str, arguments: tuple) -> None:
    """An audit hook (PEP 578): raises PermissionError when set C of an embedded person is opened."""
    if event == "open" and isinstance(arguments[0], (str, os.PathLike)):
        folder, person, name = ("", "", *Path(os.path.abspath(arguments[0])).parts)[-3:]
        if folder == "faces" and name.startswith("C"):
            opened.append(f"{person}/{name}")
            raise PermissionError(f"{person}/{name}: the judge's photos are closed to entries")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
