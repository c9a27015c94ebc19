"""The purification-customization benchmark: protect, purify, customize, generate, judge, for a grid of cells.

Each stage's pictures are kept in a folder under a hash of everything that made them (content of the input,
names, options, models), so that cells share what they have in common and a stopped run goes on where it was.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from ..customization.dreambooth import dreambooth_steps
from ..customization.generate import generate
from ..customization.latent_diffusion import CLASS_PROMPT
from ..customization.registry import CUSTOMIZER_STEPS, CUSTOMIZERS
from ..judges.brisque import brisque
from ..judges.faces import Judge
from ..judges.frechet import frechet
from ..models.embedded import load_faces
from ..protections.anti_dreambooth import aspl_steps
from ..protections.registry import PROTECTIONS, needs, protect
from ..purifiers.diffpure import gridpure_steps
from ..purifiers.registry import DIFFUSION, parse_purifier, purify
from ..runtime.devices import pick_dtype
from ..runtime.digests import default, defaults, digest, weights_digest
from .cache import _kept

if TYPE_CHECKING:
    from diffusers import DDPMPipeline, StableDiffusionPipeline

PROMPTS = ("a photo of sks person", "a dslr portrait of sks person")


class Cell(NamedTuple):
    """One row of the table: the names of what was done, to whom, and the seed of all of it."""

    protect: str
    purify: str
    customize: str
    identity: str
    seed: int


class World(NamedTuple):
    """What the cells of one run share."""

    ddpm: "DDPMPipeline"
    pipe: "StableDiffusionPipeline"
    judge: Judge
    cache: Path  # folder of the stages' pictures
    eta: float = 16 / 255  # budget, [0, 1] units
    steps: int = 100  # of PGD
    samples: int = 16  # generated images a prompt
    learning: int | None = None  # steps of customization; None: each customizer's own
    options: Mapping[str, Mapping[str, object]] = {}  # protection → its further arguments; others: defaults


def plan(
    protections: Sequence[str],
    purifiers: Sequence[str],
    customizers: Sequence[str],
    identities: Sequence[str],
    seeds: Sequence[int],
) -> list[Cell]:
    """All cells of a grid. The first named come first, whole person by whole person: a run that is stopped
    early has finished people in it, not single cells of many.
    """
    return [
        Cell(protection, purifier, customizer, identity, seed)
        for seed in seeds
        for identity in identities
        for customizer in customizers
        for protection in protections
        for purifier in purifiers
    ]


def run_cell(cell: Cell, world: World) -> dict[str, object]:
    """One row: every column of `results.COLUMNS`.

    The judge sees the generated images, set C, and the photos; what was learned from is set B, protected and
    then purified. Raises ValueError for unknown names.
    """
    x = load_faces(cell.identity, "B")
    protected = protected_photos(cell, world)
    learned = purified_photos(cell, protected, world)
    generated, key = generated_images(cell, learned, world)
    judge = world.judge
    faces, clean = judge.embed(generated), judge.embed(load_faces(cell.identity, "C"))
    real = torch.cat([load_faces(cell.identity, name) for name in "ABC"])
    changed = cell.protect != "none"
    figures = dict(
        ism=judge.ism(faces, clean),
        distance=float(judge.distance(faces, clean).nanmean()),
        same_person=judge.same_person(faces, clean),
        fdfr=judge.fdfr(faces),
        frechet=frechet(generated, real),
        brisque=float(brisque(generated).nanmean()),  # it has no value for a picture of one colour
        psnr_learned=float(judge.psnr(x, learned).mean()) if not learned.equal(x) else None,
        survival=_survival(x, protected, learned, cell, world) if changed else None,
    )
    for name in ("lpips", "flip", "ssim", "psnr"):
        figures[name] = float(getattr(judge, name)(x, protected).mean()) if changed else None
    made_with = dict(eta=world.eta, steps=world.steps, setup=setup(cell, world), cell=key[:16])
    return dict(cell._asdict(), **made_with, **figures)


def setup(cell: Cell, world: World) -> str:
    """Two hashes, "common-own": of what all rows of a table share, and of the protection's arguments."""
    learning = defaults(*CUSTOMIZER_STEPS.values(), generate)
    common = digest(world.samples, world.learning, *_models(world), *_machine(world), learning)
    own = digest(dict(world.options.get(cell.protect, {})), defaults(*_functions(cell.protect)))
    return f"{common[:8]}-{own[:8]}"


def protected_photos(cell: Cell, world: World) -> torch.Tensor:
    """Set B of the cell's person, protected; set A is what surrogates learn from.

    A protection that averages n draws in a step has an n-th of the steps: all take as many model calls.
    """
    x = load_faces(cell.identity, "B")
    set_a = load_faces(cell.identity, "A")
    options = dict(world.options.get(cell.protect, {}))
    steps = max(1, world.steps // options.get("noise_samples", 1))
    made_from = ("protect", cell.protect, world.eta, steps, cell.seed, options)
    made_from += (defaults(*_functions(cell.protect)),)
    made_from += (x, set_a, *_models(world), *_machine(world))
    models = dict(ddpm=world.ddpm, pipe=world.pipe, set_a=set_a)
    return _kept(
        world.cache,
        made_from,
        lambda: protect(cell.protect, x, eta=world.eta, steps=steps, seed=cell.seed, **models, **options),
    )[0]


def _functions(protection: str) -> list[Callable]:
    """Those whose defaults decide what a protection does."""
    surrogate = [aspl_steps, dreambooth_steps] if "set_a" in needs(protection) else []
    return [PROTECTIONS[protection], *surrogate]


def purified_photos(cell: Cell, photos: torch.Tensor, world: World) -> torch.Tensor:
    """Photos after the cell's purifier; the noise is the same for all photos that share a seed."""
    kind, numbers = parse_purifier(cell.purify)
    if kind == "gridpure":
        return _gridpured(photos, numbers, _seed(cell, "purify"), world)
    made_from, seed = ("purify", cell.purify, photos), _seed(cell, "purify")
    if kind in DIFFUSION:
        made_from += (seed, _models(world)[0], *_machine(world))
    return _kept(world.cache, made_from, lambda: purify(cell.purify, photos, ddpm=world.ddpm, seed=seed))[0]


def _gridpured(photos: torch.Tensor, numbers: dict[str, int], seed: int, world: World) -> torch.Tensor:
    """GrIDPure's picture; those of every tenth iteration on the way are kept for other cells."""

    def kept(iterations: int, make: Callable[[], torch.Tensor]) -> torch.Tensor:
        made_from = ("purify", "gridpure", iterations, photos, seed, _models(world)[0], *_machine(world))
        return _kept(world.cache, made_from, make)[0]

    def make() -> torch.Tensor:
        for done, state in enumerate(gridpure_steps(world.ddpm, photos, seed=seed, **numbers), 1):
            if done % 10 == 0 and done < total:
                kept(done, state.x.detach)
        return state.x

    numbers = {"rounds": 1, "iterations": 20} | numbers
    total = numbers["rounds"] * numbers["iterations"]
    return kept(total, make)


def generated_images(cell: Cell, photos: torch.Tensor, world: World) -> tuple[torch.Tensor, str]:
    """Images of the prompts by a model customized on `photos`, and the hash of all that made them."""
    dtype = pick_dtype(world.pipe.unet.device)
    options = {} if world.learning is None else {"steps": world.learning}
    if cell.customize == "dreambooth":
        options["prior_images"] = _prior(cell, world)

    def make() -> torch.Tensor:
        learn = CUSTOMIZERS[cell.customize]
        trained = learn(world.pipe, photos, seed=_seed(cell, "learn"), dtype=dtype, **options)
        common = dict(n=world.samples, dtype=dtype)
        return torch.cat(
            [generate(trained, prompt, seed=_seed(cell, prompt), **common) for prompt in PROMPTS]
        )

    made_from = ("customize", cell.customize, cell.seed, world.samples, str(dtype), photos, options)
    made_from += (PROMPTS, defaults(CUSTOMIZER_STEPS[cell.customize], generate))
    return _kept(world.cache, (*made_from, _models(world)[1], *_machine(world)), make)


def _prior(cell: Cell, world: World) -> torch.Tensor:
    n, seed = default(dreambooth_steps, "n_prior"), _seed(cell, "prior")
    made_from = ("prior", CLASS_PROMPT, n, seed, defaults(generate), _models(world)[1], *_machine(world))
    return _kept(world.cache, made_from, lambda: generate(world.pipe, CLASS_PROMPT, n=n, seed=seed))[0]


def _seed(cell: Cell, role: str) -> int:
    """A seed for one of the cell's stages: no stage shares noise with another, nor the protector with the
    abuser. The protection has the cell's own.
    """
    return int(digest(cell.seed, role)[:8], 16)


def _survival(x, protected, learned, cell, world) -> float:
    """‖Pure(x+δ) − Pure(x)‖ / ‖δ‖, mean over the photos."""
    remains = (learned - purified_photos(cell, x, world)).flatten(1).norm(dim=1)
    return float((remains / (protected - x).flatten(1).norm(dim=1)).mean())


def _models(world: World) -> tuple[str, str]:
    parts = ("vae", "unet", "text_encoder")
    return weights_digest(world.ddpm, ("unet",)), weights_digest(world.pipe, parts)


def _machine(world: World) -> tuple[str, int]:
    """Device and number of threads: the last bits depend on them, and training enlarges last bits."""
    device = world.pipe.unet.device
    return device.type, torch.get_num_threads() if device.type == "cpu" else 0
