"""How much a purifier changes clean photos: faces and the astronaut, from a checkpoint of any age.

    python -m tools.study.purifier_quality runs/ddpm             # tuning people, rendered on the spot
    python -m tools.study.purifier_quality data/models/ddpm --held-out [--people 16 --photos 4]

Writes nothing. Prints PSNR and the mean dlib distance to set C before and after GrIDPure 2 × 20. Then comes
the astronaut's PSNR after 20 iterations at 128 and 256 px. Goals: ≥ 32 dB, at most .03 more distance,
≥ 30 dB. Tuning people (seeds from 8500) serve while a purifier is trained, held-out people for reports.
"""

from pathlib import Path

import torch
from diffusers import DDPMPipeline

from antipure_lib import Judge, gridpure, identities, load_ddpm, load_faces, load_image
from antipure_lib.models.embedded import data_path
from tools import command_line
from tools.models.ddpm import make_scheduler, make_unet
from tools.models.loop import starting_weights

TUNING = 8500
SIZE = 128


def load(source: Path) -> DDPMPipeline:
    """A pipeline's folder, or a run's averaged weights; float32, so every processor finds the same."""
    if not (source / "state.pt").exists():
        return load_ddpm(source, dtype=torch.float32)
    unet = make_unet()
    unet.load_state_dict(starting_weights(source, "unet"))
    return DDPMPipeline(unet=unet.eval(), scheduler=make_scheduler())


def tuning_people(people: int, photos: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(photos of set B, set C) of people who are neither trained on nor reported."""
    from tools.study.tuning import rendered  # needs numba, which committed photos don't

    found = [rendered(person, side=SIZE) for person in range(TUNING, TUNING + people)]
    return [(x[4 : 4 + photos], x[8:]) for x in found]


def held_out_people(people: int, photos: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(photos of set B, set C) of the first committed people."""
    return [(load_faces(name, "B")[:photos], load_faces(name, "C")) for name in identities()[:people]]


def face_quality(ddpm: DDPMPipeline, people: list[tuple[torch.Tensor, torch.Tensor]]) -> dict[str, float]:
    """PSNR (dB) of GrIDPure 2 × 20 and the mean distance to set C without and with it.

    people: for each, N×3×H×W photos in [0, 1] and M×3×H×W photos of set C.
    """
    judge, x = Judge(), torch.cat([photos for photos, _ in people])
    y = gridpure(ddpm, x, rounds=2, iterations=20)
    found = {"psnr": judge.psnr(x, y).mean().item()}
    for name, images in (("before", x), ("after", y)):
        embedded = judge.embed(images).split([len(photos) for photos, _ in people])
        distances = [judge.distance(e, judge.embed(c)) for e, (_, c) in zip(embedded, people, strict=True)]
        found[name] = torch.cat(distances).nanmean().item()
        found[f"faces {name}"] = 1 - judge.fdfr(torch.cat(embedded))
    return found | {"rise": found["after"] - found["before"]}


def astronaut_psnr(ddpm: DDPMPipeline, side: int) -> float:
    """PSNR (dB) of GrIDPure, 20 iterations, on a photo that no training has seen, at `side` px."""
    x = load_image(data_path("photos", "astronaut.png"), size=side)[None]
    return Judge().psnr(x, gridpure(ddpm, x, iterations=20)).item()


def main(source: Path, held_out: bool, people: int, photos: int, sides: list[int]) -> None:
    ddpm = load(source)
    for side in sides:
        print(f"astronaut {side} px: {astronaut_psnr(ddpm, side):.2f} dB", flush=True)
    if people:
        faces = (held_out_people if held_out else tuning_people)(people, photos)
        for name, value in face_quality(ddpm, faces).items():
            print(f"{name}: {value:.3f}", flush=True)


if __name__ == "__main__":
    parser = command_line(__doc__)
    parser.add_argument("source", type=Path, help="a run with state.pt, or a pipeline's folder")
    parser.add_argument("--held-out", action="store_true", help="the committed people, not tuning people")
    parser.add_argument("--people", type=int, default=8, help="0 for the astronaut alone")
    parser.add_argument("--photos", type=int, default=2, help="per person, 1 to 4")
    parser.add_argument(
        "--sides", type=int, nargs="*", default=[128, 256], help="of the astronaut, in pixels"
    )
    main(**vars(parser.parse_args()))
