"""Render people who don't exist.

    python -m tools.faces.render sheet build/faces.png       # a contact sheet to look at
    python -m tools.faces.render held-out runs/faces_128     # the 24 people kept apart × 12 photos
    python -m tools.faces.render train runs/faces            # the training set: 4,000 people × 8, resumable
    python -m tools.faces.render pace                        # images per second with two processes

Seeds: training identities 0-7999, calibration 8000-8499, tuning 8500-8999, held-out people from 9001.
"""

import argparse
import json
import os
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from tools.faces.people import caption, sample_identity, sample_photo
from tools.faces.shading import build_person, head, render

HELD_OUT = range(9001, 9025)
SHARD = 25
"""Identities per file of the training set: one file is the unit of resuming."""


def photos_of(seed: int, count: int, size: int = 128) -> tuple[np.ndarray, list[str]]:
    """`count` photos of one person (count×size×size×3 uint8) and their captions."""
    identity = sample_identity(seed, head().pairs)
    person = build_person(identity)
    settings = [sample_photo(k, identity) for k in range(count)]
    pictures = np.stack([render(person, photo, size) for photo in settings])
    return pictures, [caption(identity, photo) for photo in settings]


def write_whole(path: Path, write) -> None:
    """Write a file under a temporary name, then rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp{path.suffix}")
    write(temporary)
    os.replace(temporary, path)


def render_shard(job: tuple[Path, range, int, int]) -> int:
    """One file of the training set: images, captions and identity numbers."""
    path, seeds, count, size = job
    if path.exists():
        return 0
    results = [photos_of(seed, count, size) for seed in seeds]
    write_whole(
        path,
        lambda p: np.savez(
            p,
            images=np.concatenate([pictures for pictures, _ in results]),
            captions=np.array([text for _, texts in results for text in texts]),
            identity=np.repeat(np.array(seeds), count),
        ),
    )
    return count * len(seeds)


def train(out: Path, identities: int, photos: int, size: int, workers: int) -> None:
    """Render the training set shard by shard; finished shards are kept."""
    jobs = [
        (out / f"{start:05d}.npz", range(start, min(start + SHARD, identities)), photos, size)
        for start in range(0, identities, SHARD)
    ]
    began, done = time.time(), 0
    with ProcessPoolExecutor(workers) as pool:
        for index, count in enumerate(pool.map(render_shard, jobs)):
            done += count
            rate = done / (time.time() - began)
            print(f"{index + 1}/{len(jobs)} shards, {done} images, {rate:.1f} images/s", flush=True)


def held_out(out: Path, size: int) -> None:
    """The people kept apart: sets A, B and C of four photos each, with captions."""
    captions = {}
    for number, seed in enumerate(HELD_OUT, 1):
        pictures, texts = photos_of(seed, 12, size)
        for k, (picture, text) in enumerate(zip(pictures, texts, strict=True)):
            name = f"p{number:02d}/{'ABC'[k // 4]}{k % 4 + 1}.png"
            write_whole(out / name, lambda p, picture=picture: Image.fromarray(picture).save(p, format="PNG"))
            captions[name] = text
    text = json.dumps(captions, indent=1, sort_keys=True) + "\n"
    write_whole(out / "captions.json", lambda p: p.write_text(text))


def sheet(out: Path, size: int, identities: int, photos: int, first: int, columns: int) -> None:
    """A contact sheet: all photos of one person after the other, `columns` pictures wide."""
    pictures = np.concatenate([photos_of(seed, photos, size)[0] for seed in range(first, first + identities)])
    gap = -len(pictures) % columns
    pictures = np.concatenate([pictures, np.full((gap, *pictures.shape[1:]), 255, np.uint8)])
    rows = pictures.reshape(-1, columns, size, size, 3).transpose(0, 2, 1, 3, 4)
    out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rows.reshape(-1, columns * size, 3)).save(out)


def _timed(job: tuple[range, int, int]) -> tuple[float, float]:
    """Seconds of processor time that a warmed-up process takes for its people, and the moment it began."""
    seeds, count, size = job
    photos_of(seeds[0], 1, size)
    began, used = time.time(), time.process_time()
    for seed in seeds:
        photos_of(seed, count, size)
    return time.process_time() - used, began


def pace(identities: int, photos: int, size: int, workers: int, first: int) -> None:
    """Images per second: by the clock, and by processor time (what free cores would give)."""
    share = -(-identities // workers)
    jobs = [(range(first + k * share, first + (k + 1) * share), photos, size) for k in range(workers)]
    with ProcessPoolExecutor(workers) as pool:
        spent, began = zip(*pool.map(_timed, jobs), strict=True)
    count, clock = share * workers * photos, time.time() - min(began)
    print(f"{count} images of {size} px, {workers} processes: {count / clock:.1f} images/s by the clock,")
    print(
        f"{workers * count / sum(spent):.1f} by processor time ({1e3 * sum(spent) / count:.0f} ms per image)"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("train", "held-out", "sheet", "pace"))
    parser.add_argument("out", type=Path, nargs="?", help="folder or picture to write (not for pace)")
    parser.add_argument("--size", type=int, default=128, help="pixels a side (128)")
    parser.add_argument("--identities", type=int, help="how many people (4,000; 40 for sheet and pace)")
    parser.add_argument("--photos", type=int, help="photos of each (8; 1 for a sheet)")
    parser.add_argument("--first", type=int, default=8500, help="seed of the first person of sheet and pace")
    parser.add_argument("--columns", type=int, default=8, help="pictures in a row of a sheet")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    if given.what != "pace" and given.out is None:
        parser.error("out: name the folder or picture to write")
    if given.what == "train":
        train(given.out, given.identities or 4000, given.photos or 8, given.size, given.workers)
    elif given.what == "held-out":
        held_out(given.out, given.size)
    elif given.what == "sheet":
        sheet(given.out, given.size, given.identities or 40, given.photos or 1, given.first, given.columns)
    else:
        pace(given.identities or 40, given.photos or 8, given.size, given.workers, given.first)
