"""Many photos into a folder: names that don't collide, a record for each, nothing finished is done again.

Every finished photo has a record OUT/.manifest/NAME.json: which file it was made from, with which settings,
and hashes of both files. A photo is made again when its file, a setting or its result has changed.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from glob import escape
from pathlib import Path
from typing import NamedTuple

from .decode import check_file
from .photo import Photo, photo_size, read_photo
from .pictures import atomic, temporary_prefix

MANIFEST = ".manifest"

PIXEL = 75  # bytes: a photo of 169 megapixels took 12.1 GB with the plainest protection, random signs


class Job(NamedTuple):
    """One photo and what becomes of it."""

    photo: Path
    output: Path
    command: str  # which command made it: another one takes another name

    @property
    def record(self) -> Path:
        """The JSON file that tells what `output` was made from."""
        return _record(self.output)


class Outcome(NamedTuple):
    """What `run_jobs` yields for each photo."""

    job: Job
    status: str  # "made", "kept" (it was there already) or "failed"
    message: str  # for the user, one line


def plan_jobs(
    photos: Sequence[str | os.PathLike], out: str | os.PathLike, command: str, suffix: str = ".png"
) -> list[Job]:
    """An output name for every photo, the same whichever of them are already finished.

    `out` itself among several photos, as a pattern finds it, is passed over. A photo's name is its file's
    stem; photos of one stem get -2, -3, … A file that this command didn't make
    from the same photo is never overwritten. A photo named twice is done once.
    Raises ValueError where an output would be one of the photos, and where `out` isn't a folder.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; --out takes a folder")
    photos = list({os.path.abspath(photo): Path(photo) for photo in photos}.values())
    if len(photos) > 1:
        photos = [photo for photo in photos if os.path.realpath(photo) != os.path.realpath(out)]
    originals = {os.path.realpath(photo) for photo in photos}
    jobs, taken = [], set()
    for photo in photos:
        if os.path.realpath(out / (photo.stem + suffix)) in originals:
            name = photo.stem + suffix
            raise ValueError(f"{name} would be overwritten in {out}; give another folder with --out")
        number = 1
        while True:
            job = Job(photo, out / f"{photo.stem}{f'-{number}' if number > 1 else ''}{suffix}", command)
            # Compared without case, since some file systems don't know it.
            if job.output.name.casefold() not in taken and _is_free(job):
                break
            number += 1
        taken.add(job.output.name.casefold())
        jobs.append(job)
    return jobs


def run_jobs(
    jobs: Sequence[Job],
    settings: Mapping[str, object],
    work: Callable[[Photo, Path], str],
) -> Iterator[Outcome]:
    """Make every photo that isn't there yet. One that fails is told of, and the others go on.

    settings: everything else that the result depends on, as JSON knows it; a difference makes it anew.
    work(photo, path): writes the result whole or not at all and returns what there is to say about it.
    """
    for job in jobs:
        try:
            yield _run(job, dict(settings), work)
        except MemoryError:
            yield Outcome(job, "failed", f"{job.photo}: not enough memory; make it smaller")
        except (
            OSError,
            ValueError,
            RuntimeError,
        ) as error:  # torch tells of exhausted memory by a RuntimeError
            told = str(error)
            if isinstance(error, OSError) and error.errno is not None:  # the system's words, not ours
                told = f"{error}; see to it and run this again, finished photos are kept"
            yield Outcome(job, "failed", told if str(job.photo) in told else f"{job.photo}: {told}")


def _run(job: Job, settings: dict, work: Callable[[Photo, Path], str]) -> Outcome:
    check_file(job.photo)
    _check_record(job)
    made_from = _origin(job) | {"input_sha256": _sha256(job.photo), "settings": settings}
    found = _read(job.record)
    why = _difference(found, made_from, job.output)
    if why is None:
        return Outcome(job, "kept", f"{job.photo} → {job.output}: already there, kept")
    _check_size(job.photo)
    photo = read_photo(job.photo)
    for path in (job.output, job.record):
        for half in path.parent.glob(f"{escape(temporary_prefix(path))}*.tmp"):  # of a run that was killed
            half.unlink()
    if found is None:
        _write(job.record, made_from)  # from now on the name is this photo's, even if the run is killed
    try:
        said = work(photo, job.output)
    except BaseException:
        if found is None:
            job.record.unlink(missing_ok=True)
        raise
    _write(job.record, made_from | {"output_sha256": _sha256(job.output)})
    taken = [] if job.output.stem == job.photo.stem else [f"{job.photo.stem}{job.output.suffix} was taken"]
    notes = [*([f"made again: {why}"] if why else taken), *photo.notes, *([said] if said else [])]
    return Outcome(job, "made", "; ".join([f"{job.photo} → {job.output}", *notes]))


def _check_size(photo: Path) -> None:
    """Refuse a photo that can't be held in memory before it is read: the machine might end the whole run."""
    import torch

    from ..runtime.memory import free_memory

    height, width = photo_size(photo) or (0, 0)
    needed, free = PIXEL * height * width, free_memory(torch.device("cpu"))
    if needed > free:
        raise ValueError(
            f"{photo}: {width}×{height} pixels need about {needed / 1e9:.1f} GB to be read and written, and "
            f"{free / 1e9:.1f} GB are free; make the photo smaller"
        )


def _difference(found: dict | None, made_from: dict, output: Path) -> str | None:
    """Why the result can't stay: None if it can, "" where there is none yet."""
    if found is None or "output_sha256" not in found:
        return ""
    if found.get("input_sha256") != made_from["input_sha256"]:
        return "the photo has changed"
    old, new = found.get("settings"), made_from["settings"]
    old = old if isinstance(old, dict) else {}
    changed = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    if changed:
        return f"other settings ({', '.join(changed)})"
    if not output.exists() or _sha256(output) != found["output_sha256"]:
        return "the result was missing or changed"
    return None


def _is_free(job: Job) -> bool:
    found = _read(job.record)
    if found is None:
        return not os.path.lexists(job.output)
    return {name: found.get(name) for name in _origin(job)} == _origin(job)


def _origin(job: Job) -> dict[str, str]:
    try:
        name = os.path.relpath(job.photo, job.output.parent)  # so that both folders can move together
    except ValueError:  # another drive
        name = str(job.photo)
    return {"command": job.command, "input": Path(name).as_posix()}


def _record(output: Path) -> Path:
    return output.parent / MANIFEST / f"{output.name}.json"


def _read(record: Path) -> dict | None:
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # absent, no file, damaged: nothing is known of the photo
        return None
    return found if isinstance(found, dict) else None


def _check_record(job: Job) -> None:
    for path, fits, kind in ((job.record.parent, Path.is_dir, "folder"), (job.record, Path.is_file, "file")):
        if os.path.lexists(path) and not fits(path):
            raise ValueError(f"{job.photo}: its record belongs at {path}, which is no {kind}; remove that")


def _write(record: Path, content: Mapping[str, object]) -> None:
    with atomic(record) as temporary:
        temporary.write_text(json.dumps(content, indent=1, sort_keys=True), encoding="utf-8")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
