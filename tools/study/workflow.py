"""Which parts of the workflow attack matter; data/results/workflow.jsonl, on people whom no table reports.

    python -m tools.study.workflow run      # resumable; about two minutes of a core per row
    python -m tools.study.workflow table    # means over the people, the strongest first

Each row protects one photo of a tuning person, purifies it with GrIDPure, and measures what the purified
photo still shows a latent model (`latent_after`) and dlib (`identity_after`) next to the purified clean
photo. All variants differ from BASE in the one thing that their name says.
"""

import json
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev

import torch
from torch.nn import functional as F

from antipure_lib import Judge, gaussian_blur, gridpure, load_ddpm, load_stable_diffusion, pgd, protect
from antipure_lib.core.antipure import antipure_loss
from antipure_lib.core.diffusion import add_noise, alpha_bars
from antipure_lib.core.images import quantise_within
from antipure_lib.customization.latent_diffusion import (
    PROMPT,
    denoising_term,
    latents,
    posterior,
    sample_latents,
    text_embeddings,
)
from antipure_lib.protections.workflow import MIXED, short_purifiers, workflow_loss
from antipure_lib.runtime.noise import randn
from antipure_lib.runtime.unet import pipe_view
from tools.study.lines import append, read
from tools.study.nano import rendered

OUT = Path(__file__).resolve().parents[2] / "data/results/workflow.jsonl"
PEOPLE = tuple(range(8500, 8508))
ETA = 16 / 255
BASE = dict(steps=12, step_size=4 / 255, t=10, stride=5, iterations=4, gamma=0.1)
VARIANTS = {
    "base": {},
    "pixels": dict(see="pixels"),
    "latents per channel": dict(see="per channel"),
    "middle of the UNet": dict(see="middle"),
    "latents and middle": dict(see="both"),
    "denoising loss": dict(see="denoising"),
    "1 iteration": dict(iterations=1),
    "2 iterations": dict(iterations=2),
    "8 iterations": dict(iterations=8),
    "stride 10": dict(stride=10),
    "stride 2": dict(stride=2),
    "identity backward": dict(backward="identity"),
    "1 draw": dict(draws=1),
    "4 draws": dict(draws=4),
    "4 draws averaged": dict(averaged=4, steps=4, step_size=8 / 255),
    "25 steps of 2/255": dict(steps=25, step_size=2 / 255),
    "6 steps of 8/255": dict(steps=6, step_size=8 / 255),
    "from AntiPure": dict(start="antipure"),
    "low-passed": dict(shape="blur"),
    "half resolution": dict(shape="half"),
    "mixed purifiers": dict(purifiers=MIXED),
    "with AntiPure's guidances": dict(guidances=True),
    "η 8/255": dict(eta=8 / 255, step_size=2 / 255),
}
RIVALS = {"random": {}, "antipure": dict(momentum=0.9), "advdm": dict(momentum=0.9)}


def seen_by(pipe, x: torch.Tensor, what: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """What the learner sees of images: N×3×H×W → N×…, in units of the clean photo's own spread."""

    def encode(y):
        return posterior(pipe, y)[0]

    with torch.no_grad():
        spread = encode(x).std((2, 3), keepdim=True)
    embedding = text_embeddings(pipe, [PROMPT])

    def middle(y):
        """The UNet's middle block at t = 100, always the same noise."""
        z0, found = encode(y), []
        t = torch.full((len(y),), 100, device=y.device)
        eps = randn(z0.shape, torch.Generator().manual_seed(0), y.device)
        handle = pipe.unet.mid_block.register_forward_hook(lambda *call: found.append(call[-1]))
        try:
            z_t = add_noise(z0, eps, t, alpha_bars(pipe.scheduler, y.device))
            pipe.unet(z_t, t, embedding().expand(len(y), -1, -1))
        finally:
            handle.remove()
        return found[0]

    def both(y):
        parts = [part.flatten(1) for part in (encode(y), middle(y))]
        return torch.cat([part / part.shape[1] ** 0.5 for part in parts], 1)

    return {
        "latents": encode,
        "pixels": lambda y: y,
        "per channel": lambda y: encode(y) / spread,
        "middle": middle,
        "both": both,
    }[what]


def with_backward(purify: Callable, kind: str) -> Callable:
    """The same purifier with its own backward pass, or with the identity in its place."""

    def identity(x, seed):
        with torch.no_grad():
            purified = purify(x, seed)
        return x + (purified - x).detach()

    return {"exact": purify, "identity": identity}[kind]


def attack(x: torch.Tensor, world: dict, variant: dict) -> torch.Tensor:
    """One photo, protected by a variant of the workflow attack, as an 8-bit file."""
    options = BASE | dict(eta=ETA) | variant
    ddpm, pipe = world["ddpm"], world["view"]
    chain = {key: options[key] for key in ("t", "stride", "iterations", "gamma")}
    purifiers = short_purifiers(ddpm, **chain, checkpointing=False)
    chosen = [
        with_backward(purifiers[name], options.get("backward", "exact"))
        for name in options.get("purifiers", ["gridpure"])
    ]
    if options.get("see") == "denoising":
        embedding = text_embeddings(pipe, [PROMPT])

        def loss(x_adv, generator):
            z0 = sample_latents(
                pipe, chosen[0](x_adv, int(torch.randint(2**31, (), generator=generator))), generator
            )
            return denoising_term(pipe, z0, embedding(), generator)
    else:
        loss = workflow_loss(chosen, seen_by(pipe, x, options.get("see", "latents")), x, options.get("draws"))
    loss = shaped(averaged(loss, options.get("averaged", 1)), x, options.get("shape"))
    how = dict(momentum=0.9, random_start="start" not in options)
    if "start" in options:
        how["start"] = protect(
            options["start"], x, ddpm=ddpm, pipe=world["pipe"], steps=20, step_size=2 / 255
        )
    if options.get("guidances"):
        theirs = antipure_loss(ddpm, tuple(x.shape[-2:]), ("pfg", "etg"))
        ours = loss
        loss = lambda x_adv, generator: {"loss": ours(x_adv, generator)} | theirs(x_adv, generator)
        how |= dict(balance="equal", weights=dict(loss=1.0, pfg=0.25, etg=0.25))
    *_, last = pgd(loss, x, options["eta"], options["steps"], options["step_size"], 0, **how)
    return quantise_within(x + SHAPES[options.get("shape")](last.x_adv - x), x, options["eta"])


SHAPES = {
    None: lambda delta: delta,
    "blur": lambda delta: 2 * gaussian_blur(delta / 2 + 0.5, 1.0) - 1,
    "half": lambda delta: F.interpolate(F.avg_pool2d(delta, 2), scale_factor=2.0, mode="bilinear"),
}


def shaped(loss: Callable, x: torch.Tensor, shape: str | None) -> Callable:
    """The loss of the photo with the shaped δ."""
    return lambda x_adv, generator: loss((x + SHAPES[shape](x_adv - x)).clamp(0, 1), generator)


def averaged(loss: Callable, count: int) -> Callable:
    """The mean of the loss over `count` draws."""
    return lambda x_adv, generator: sum(loss(x_adv, generator) for _ in range(count)) / count


def measure(person: int, name: str, world: dict) -> dict:
    """Figures of one variant, or rival, on one photo."""
    x = rendered(person)[4:5]
    if person not in world["clean"]:
        world["clean"][person] = gridpure(world["ddpm"], x, iterations=20, seed=77)
    clean, began = world["clean"][person], time.process_time()
    if name in RIVALS:
        options = {} if name == "random" else dict(steps=40) | RIVALS[name]
        protected = protect(name, x, ddpm=world["ddpm"], pipe=world["pipe"], eta=ETA, **options)
    else:
        protected = attack(x, world, VARIANTS[name])
    seconds = time.process_time() - began
    purified = gridpure(world["ddpm"], protected, iterations=20, seed=77)
    judge, pipe = world["judge"], world["pipe"]
    z, z_clean = latents(pipe, purified, 8)[0], latents(pipe, clean, 8)[0]
    left, delta = (purified - clean).norm(), (protected - x).norm()
    return dict(
        latent_after=float((z - z_clean).square().mean().sqrt() / z_clean.std()),
        identity_after=float((judge.embed(purified) - judge.embed(clean)).norm(dim=1).nanmean()),
        survival=float(left / delta),
        lpips=float(judge.lpips(x, protected).mean()),
        seconds=round(seconds, 1),
    )


def run(out: Path, people: list[int], names: list[str]) -> None:
    """Measure what `out` lacks, one row per variant and person."""
    done = {(row["variant"], row["person"]) for row in read(out, "variant")}
    pipe = load_stable_diffusion()
    world = dict(ddpm=load_ddpm(), pipe=pipe, view=pipe_view(pipe), judge=Judge(), clean={})
    for name in names:
        for person in people:
            if (name, person) not in done:
                row = dict(variant=name, person=person) | measure(person, name, world)
                append(out, row)
                print(json.dumps(row, ensure_ascii=False), flush=True)


def table(path: Path) -> None:
    """Means over the people, the strongest in latents first, with the standard deviation."""
    rows, columns = read(path, "variant"), ("latent_after", "identity_after", "survival", "lpips", "seconds")
    print(f"{'variant':26}{'people':>7}", *(f"{name:>16}" for name in columns))
    of = {name: [row for row in rows if row["variant"] == name] for name in {row["variant"] for row in rows}}
    for name, own in sorted(of.items(), key=lambda pair: -fmean(r["latent_after"] for r in pair[1])):
        cells = ((fmean(r[c] for r in own), stdev(r[c] for r in own) if len(own) > 1 else 0) for c in columns)
        print(f"{name:26}{len(own):7}", *(f"{mean:9.3f} ± {sd:.3f}" for mean, sd in cells))


if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("out", type=Path, nargs="?", default=OUT)
    parser.add_argument("--people", type=int, nargs="+", default=PEOPLE[:2])
    parser.add_argument("--variants", nargs="+", default=[*RIVALS, *VARIANTS], metavar="NAME")
    given = parser.parse_args()
    run(given.out, given.people, given.variants) if given.what == "run" else table(given.out)
