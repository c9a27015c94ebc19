"""Many photos into a folder: names that don't collide, and no finished photo is made again.

Each result has a record OUT/.manifest/NAME.json: the photo's name and hash, the settings, the result's hash.
A photo is made again when its file or a setting has changed, or its result is gone. A result that somebody
has edited is kept, and the new one takes another name.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from glob import escape
from itertools import count
from pathlib import Path
from typing import NamedTuple

from ..runtime import memory
from ..runtime.checks import check_path
from .decode import check_file
from .photo import Photo, photo_size, read_photo
from .pictures import LOSSLESS, LOSSY, atomic, short_name, temporary_prefix

PIXEL = 75  # bytes: a photo of 169 megapixels took 12.1 GB with the plainest protection, random signs


class Job(NamedTuple):
    """One photo and its result."""

    photo: Path
    output: Path
    command: str  # which command made it: another one takes another name
    notes: tuple[str, ...] = ()  # why the result hasn't the photo's name

    @property
    def record(self) -> Path:
        """The JSON file with what `output` was made from."""
        return self.output.parent / ".manifest" / f"{short_name(self.output.name)}.json"


class Outcome(NamedTuple):
    """What `run_jobs` yields for each photo."""

    job: Job
    status: str  # "made", "kept" (it was there already) or "failed"
    message: str  # for the user, one line


def plan_jobs(
    photos: Sequence[str | os.PathLike], out: str | os.PathLike, command: str, suffix: str = ".png"
) -> list[Job]:
    """A result's name for every photo, the same whichever of them are already finished.

    A result has its photo's name, or with -2, -3, … at its end if that is taken. Names are taken by other
    photos of this run, by edited results, and by files that this command didn't make from this photo.
    A photo named twice is done once. `out` among several photos, as a pattern finds it, is passed over.
    Raises ValueError where a result would be one of the photos, and where `out` isn't a folder's name.
    """
    out = check_path(out)
    if out.suffix.lower() in LOSSLESS | LOSSY:
        raise ValueError(
            f"--out {out} reads like a file; --out takes a folder. Photos become .png there, because JPEG "
            "discards the fine detail that a perturbation is made of; protect's --jpeg writes it all the same"
        )
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; --out takes a folder")
    photos = list({os.path.abspath(photo): photo for photo in map(check_path, photos)}.values())
    if len(photos) > 1:
        photos = [photo for photo in photos if os.path.realpath(photo) != os.path.realpath(out)]
    originals = {os.path.realpath(photo) for photo in photos}
    jobs, taken = [], set()
    for photo in photos:
        name, notes = f"{photo.stem}{suffix}", ()
        if os.path.realpath(out / name) in originals:
            raise ValueError(f"{name} would be overwritten in {out}; give another folder with --out")
        for number in count(2):
            job = Job(photo, out / name, command, notes)
            # Compared without case, since some file systems don't know it.
            why = "taken" if name.casefold() in taken else _occupied(job)
            if not why:
                break
            name, notes = f"{photo.stem}-{number}{suffix}", (*notes, f"{name} was {why}")
        taken.add(name.casefold())
        jobs.append(job)
    return jobs


def run_jobs(
    jobs: Sequence[Job],
    settings: Mapping[str, object],  # all else that the results depend on, as JSON knows it
    work: Callable[[Photo, Path], str],
) -> Iterator[Outcome]:
    """Make every photo that isn't there yet. If one fails, its outcome says why, and the others go on.

    work(photo, path): writes the result, whole or not at all, and returns what there is to say about it.
    """
    for job in jobs:
        try:
            yield _run(job, dict(settings), work)
        except MemoryError:
            yield Outcome(job, "failed", f"{job.photo}: not enough memory; make it smaller")
        except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: torch's exhausted memory
            told = str(error)
            if isinstance(error, OSError) and error.errno is not None:  # the system's words, not ours
                told = f"{error}; see to it and run this again, finished photos are kept"
            yield Outcome(job, "failed", told if str(job.photo) in told else f"{job.photo}: {told}")


def _run(job: Job, settings: dict, work: Callable[[Photo, Path], str]) -> Outcome:
    check_file(job.photo)
    made_from = _origin(job) | {"input_sha256": _sha256(job.photo), "settings": settings}
    found = _read(job.record) or {}
    arrow, why = f"{job.photo} → {job.output}", _difference(found, made_from, job.output)
    if why is None:
        return Outcome(job, "kept", "; ".join([f"{arrow}: already there, kept", *job.notes]))
    if _occupied(job):
        raise ValueError(f"{job.photo}: {job.output} was changed during this run and is kept; run this again")
    _check_size(job.photo)
    photo = read_photo(job.photo)
    for path in (job.output, job.record):
        for half in path.parent.glob(f"{escape(temporary_prefix(path))}*.tmp"):  # of a run that was killed
            half.unlink()
    _write(job.record, made_from)  # without the result's hash: the name is this photo's if the run is killed
    try:
        said = work(photo, job.output)
    except BaseException:
        _write(job.record, found) if found else job.record.unlink(missing_ok=True)
        raise
    _write(job.record, made_from | {"output_sha256": _sha256(job.output)})
    notes = [*job.notes, *([f"made again: {why}"] if why else []), *photo.notes, *([said] if said else [])]
    return Outcome(job, "made", "; ".join([arrow, *notes]))


def _check_size(photo: Path) -> None:
    """Refuse a photo that can't be held in memory before it is read: the machine might end the whole run."""
    height, width = photo_size(photo) or (0, 0)
    needed, free = PIXEL * height * width, memory.free_memory("cpu")
    if needed > free:
        raise ValueError(
            f"{photo}: {width}×{height} pixels need about {needed / 1e9:.1f} GB to be read and written, and "
            f"{free / 1e9:.1f} GB are free; make the photo smaller"
        )


def _difference(found: dict, made_from: dict, output: Path) -> str | None:
    """Why the result can't stay: None if it can, "" where there is no finished one yet."""
    if "output_sha256" not in found:
        return ""
    if found.get("input_sha256") != made_from["input_sha256"]:
        return "the photo has changed"
    old, new = found.get("settings"), made_from["settings"]
    old = old if isinstance(old, dict) else {}
    changed = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    if changed:
        return f"other settings ({', '.join(changed)})"
    return None if os.path.lexists(output) else "the result was missing"


def _occupied(job: Job) -> str:
    """Why the result's name can't be used: "taken" by another file, "edited" since; "" if it can."""
    found = _read(job.record)
    if not os.path.lexists(job.output) and not found:
        return ""
    if not found or any(found.get(name) != value for name, value in _origin(job).items()):
        return "taken"
    if "output_sha256" not in found or not os.path.lexists(job.output):  # the run was killed; it was removed
        return ""
    try:
        same = job.output.is_file() and _sha256(job.output) == found["output_sha256"]
    except OSError:  # it can't be read
        same = False
    return "" if same else "edited since, and is kept"


def _origin(job: Job) -> dict[str, str]:
    try:
        name = os.path.relpath(job.photo, job.output.parent)  # so that both folders can move together
    except ValueError:  # another drive
        name = str(job.photo)
    return {"command": job.command, "input": Path(name).as_posix()}


def _read(record: Path) -> dict | None:
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # absent, no file, damaged: nothing is known of the photo
        return None
    return found if isinstance(found, dict) else None


def _write(record: Path, content: Mapping[str, object]) -> None:
    with atomic(record) as temporary:
        temporary.write_text(json.dumps(content, indent=1, sort_keys=True), encoding="utf-8")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
