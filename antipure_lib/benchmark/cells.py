"""One cell of the benchmark: protect, purify, customize, generate, judge.

Each stage's pictures are kept in a folder under a hash of everything that made them. So cells share what they
have in common, and a stopped run goes on where it was. A method's record says what it needs.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from inspect import signature
from pathlib import Path
from typing import NamedTuple

import torch

from ..customization.generate import generate
from ..customization.latent_diffusion import CLASS_PROMPT
from ..customization.registry import CUSTOMIZERS
from ..judges.brisque import brisque
from ..judges.faces import Judge
from ..judges.frechet import frechet
from ..judges.perturbation import survival
from ..models.embedded import identities, load_faces
from ..protections.registry import PROTECTIONS, protect
from ..purifiers.registry import PURIFIERS, Part, parts_of, purify
from ..runtime.checks import check_seed
from ..runtime.devices import pick_dtype
from ..runtime.digests import defaults, digest
from ..runtime.pipelines import DDPMPipeline, StableDiffusionPipeline
from .cache import kept
from .draws import draws_of
from .rows import Cell

PROMPTS = ("a photo of sks person", "a dslr portrait of sks person")
PRIOR = 64  # images of the class, for customizers that preserve a prior


class World(NamedTuple):
    """What the cells of one run share; `run.make_world` makes it."""

    ddpm: "DDPMPipeline"
    pipe: "StableDiffusionPipeline"
    judge: Judge
    cache: Path  # folder of the stages' pictures
    weights: Mapping[str, str]  # "ddpm", "pipe" → hash of its weights
    eta: float = 16 / 255  # budget, [0, 1] units
    steps: int = 100  # of PGD
    samples: int = 16  # generated images per prompt
    learning: int | None = None  # steps of customization; None: each customizer's own
    options: Mapping[str, Mapping[str, object]] = {}  # protection → its further arguments; others: defaults


class Person(NamedTuple):
    """The photos of one person, 4×3×H×W in [0, 1] each."""

    set_a: torch.Tensor  # surrogates learn from it
    set_b: torch.Tensor  # protected, purified, learned
    set_c: torch.Tensor  # the judge compares with it


def load_person(identity: str) -> Person:
    """The embedded photos of one of `identities()`. Raises ValueError for an unknown person."""
    return Person(*(load_faces(identity, name) for name in "ABC"))


def check_cells(cells: Iterable[Cell]) -> None:
    """Raises ValueError for an unknown name, and for a seed outside 0 … 2⁶³−1."""
    known = {"protect": PROTECTIONS, "customize": CUSTOMIZERS, "identity": identities()}
    for cell in cells:
        draws_of(cell.purify)
        check_seed(cell.seed)
        for column, names in known.items():
            if (name := getattr(cell, column)) not in names:
                raise ValueError(f"{column}: unknown '{name}'; the known ones are {', '.join(names)}")


def run_cell(cell: Cell, world: World) -> dict[str, object]:
    """One row, every column of `rows.COLUMNS`: a customizer learns set B, protected and then purified.

    Errors as `check_cells`.
    """
    check_cells([cell])
    person, judge = load_person(cell.identity), world.judge
    x = person.set_b
    protected = protected_photos(cell, person, world)
    learned = purified_photos(cell, protected, world)
    generated, key = generated_images(cell, learned, world)
    row = cell._asdict() | dict(eta=world.eta, steps=world.steps, setup=setup(cell, world), cell=key[:16])
    row |= judged(generated, person, judge)
    changed = (protected != x).flatten(1).any(dim=1).all()
    for name in ("lpips", "flip", "ssim", "psnr"):
        row[name] = float(getattr(judge, name)(x, protected).mean()) if changed else None
    first = learned[: len(x)]  # of several copies, here and below
    row["psnr_learned"] = None if first.equal(x) else float(judge.psnr(x, first).mean())
    wash, draw, _ = draws_of(cell.purify)
    left = survival(lambda y, _: _one_draw(cell, wash, draw, y, world), x, protected) if changed else None
    return row | dict(survival=None if left is None else float(left.mean()))


def judged(generated: torch.Tensor, person: Person, judge: Judge) -> dict[str, float]:
    """The figures of generated images, N×3×H×W in [0, 1]; see `rows.FIGURES`."""
    faces, clean = judge.embed(generated), judge.embed(person.set_c)
    return dict(
        ism=judge.ism(faces, clean),
        distance=float(judge.distance(faces, clean).nanmean()),
        same_person=judge.same_person(faces, clean),
        fdfr=judge.fdfr(faces),
        frechet=frechet(generated, torch.cat(person)),
        brisque=float(brisque(generated).nanmean()),  # it has no value for a picture of one colour
    )


def setup(cell: Cell, world: World) -> str:
    """Hashes with "-" between them: of what a table's rows share, and of protection, purifier, customizer."""
    protection = PROTECTIONS[cell.protect]
    purifiers = [PURIFIERS[part.kind] for part in parts_of(draws_of(cell.purify).name)]
    customizer = CUSTOMIZERS[cell.customize]
    parts = (
        (world.samples, world.learning, *world.weights.values(), *_machine(world), defaults(generate)),
        (dict(world.options.get(cell.protect, {})), defaults(protection.steps, *protection.also)),
        tuple(defaults(purifier.run, *purifier.also) for purifier in purifiers),
        (defaults(customizer.steps, *customizer.also),),
    )
    return "-".join(digest(*part)[:8] for part in parts)


def protected_photos(cell: Cell, person: Person, world: World) -> torch.Tensor:
    """Set B of the cell's person, protected; 4×3×H×W in [0, 1]."""
    record, options = PROTECTIONS[cell.protect], dict(world.options.get(cell.protect, {}))
    steps = max(1, world.steps // options.get("noise_samples", 1))  # so all take as many model calls
    made_from = ("protect", cell.protect, world.eta, steps, cell.seed, options, person.set_b)
    made_from += (defaults(record.steps, *record.also), *_machine(world))
    needed = {**world.weights, "set_a": person.set_a}
    made_from += tuple(needed[name] for name in record.needs)
    common = dict(eta=world.eta, steps=steps, seed=cell.seed)
    common |= dict(ddpm=world.ddpm, pipe=world.pipe, set_a=person.set_a)
    return kept(world.cache, made_from, lambda: protect(cell.protect, person.set_b, **common, **options))[0]


def purified_photos(cell: Cell, photos: torch.Tensor, world: World) -> torch.Tensor:
    """Photos after the cell's purifiers, N×3×H×W in [0, 1]; of several copies the first copy of all first."""
    name, first, copies = draws_of(cell.purify)
    return torch.cat([_one_draw(cell, name, draw, photos, world) for draw in range(first, first + copies)])


def _one_draw(cell: Cell, name: str, draw: int, photos: torch.Tensor, world: World) -> torch.Tensor:
    for part in parts_of(name, _seed(cell, f"purify {draw}" if draw else "purify")):
        photos = _purified(part, photos, world)
    return photos


def _purified(part: Part, photos: torch.Tensor, world: World) -> torch.Tensor:
    record = PURIFIERS[part.kind]
    made_from = ("purify", part.kind, photos, defaults(record.run, *record.also))
    if record.needs:
        made_from += (part.seed, *(world.weights[name] for name in record.needs), *_machine(world))
    if record.along and "iterations" in record.numbers:
        return _purified_along(part, photos, made_from, world)
    options = dict(ddpm=world.ddpm, pipe=world.pipe, seed=part.seed)
    return kept(world.cache, (*made_from, part.numbers), lambda: purify(part.name, photos, **options))[0]


def _purified_along(part: Part, photos: torch.Tensor, made_from: tuple, world: World) -> torch.Tensor:
    """The picture after all iterations, whatever rounds they are in. On the way every tenth is kept."""
    record = PURIFIERS[part.kind]
    numbers = {name: signature(record.run).parameters[name].default for name in record.numbers} | part.numbers
    others = dict(numbers)
    total = others.pop("iterations") * others.pop("rounds", 1)
    models = [getattr(world, key) for key in record.needs]
    seeded = {"seed": part.seed} if record.seeded else {}

    def after(iterations, make):
        return kept(world.cache, (*made_from, others, iterations), make)[0]

    def make():
        for done, state in enumerate(record.along(*models, photos, **numbers, **seeded), 1):
            if done % 10 == 0 and done < total:
                after(done, lambda x=state.x: x)
        return state.x

    return after(total, make)


def generated_images(cell: Cell, photos: torch.Tensor, world: World) -> tuple[torch.Tensor, str]:
    """Images of the prompts by a model customized on `photos`, and the hash of all that made them."""
    record, dtype = CUSTOMIZERS[cell.customize], pick_dtype(world.pipe.unet.device)
    options = {} if world.learning is None else {"steps": world.learning}
    if record.needs_prior:
        seed = _seed(cell, "prior")
        made_from = ("prior", CLASS_PROMPT, PRIOR, seed, defaults(generate), world.weights["pipe"])
        prior = partial(generate, world.pipe, CLASS_PROMPT, n=PRIOR, seed=seed)
        options["prior_images"], _ = kept(world.cache, (*made_from, *_machine(world)), prior)

    def make() -> torch.Tensor:
        trained = record(world.pipe, photos, seed=_seed(cell, "learn"), dtype=dtype, **options)
        common = dict(n=world.samples, dtype=dtype)
        return torch.cat([generate(trained, p, seed=_seed(cell, p), **common) for p in PROMPTS])

    made_from = ("customize", cell.customize, cell.seed, world.samples, str(dtype), photos, options)
    made_from += (
        PROMPTS,
        defaults(record.steps, *record.also, generate),
        world.weights["pipe"],
        *_machine(world),
    )
    return kept(world.cache, made_from, make)


def _seed(cell: Cell, role: str) -> int:
    """A stage's own seed: no two stages share their noise."""
    return int(digest(cell.seed, role)[:8], 16)


def _machine(world: World) -> tuple[str, int]:
    """Device and number of threads: the last bits depend on them, and training enlarges last bits."""
    device = world.pipe.unet.device
    return device.type, torch.get_num_threads() if device.type == "cpu" else 0
