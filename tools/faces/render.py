"""Render people who don't exist.

    python -m tools.faces.render sheet build/faces.png       # a contact sheet to look at
    python -m tools.faces.render held-out runs/faces_128     # the 24 people kept apart × 12 photos
    python -m tools.faces.render train runs/faces            # the training set: 4,000 people × 8, resumable

Seeds: training identities 0-7999, calibration 8000-8499, tuning 8500-8999, held-out people from 9001.
"""

import json
import os
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from tools import command_line
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


def sheet(out: Path, size: int) -> None:
    """A contact sheet: one photo of each of 40 tuning people, eight in a row."""
    pictures = np.concatenate([photos_of(seed, 1, size)[0] for seed in range(8500, 8540)])
    rows = pictures.reshape(-1, 8, size, size, 3).transpose(0, 2, 1, 3, 4)
    out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rows.reshape(-1, 8 * size, 3)).save(out)


if __name__ == "__main__":
    parser = command_line(__doc__)
    parser.add_argument("what", choices=("train", "held-out", "sheet"))
    parser.add_argument("out", type=Path, help="folder or picture to write")
    parser.add_argument("--size", type=int, default=128, help="pixels a side (128)")
    parser.add_argument("--identities", type=int, default=4000, help="how many people to train with (4,000)")
    parser.add_argument("--photos", type=int, default=8, help="photos of each (8)")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    if given.what == "train":
        train(given.out, given.identities, given.photos, given.size, given.workers)
    else:
        {"held-out": held_out, "sheet": sheet}[given.what](given.out, given.size)
