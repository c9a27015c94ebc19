"""`python -m antipure_lib protect` and `purify`: photos of one's own, at their own size, into a folder.

Everything heavy is imported where it is used: the command line starts without torch.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .photos import Photo

Work = Callable[["Photo", Path], str]
PRECISIONS = ("float32", "bfloat16", "float16")


def add_command(subparsers: Any) -> None:
    """Add `protect` and `purify` to the command line's parser."""
    about = "Photos keep their size. What is finished isn't done again; a run that was killed goes on."
    summary = "protect photos against customization, at their own size"
    parser = subparsers.add_parser("protect", help=summary, description=f"{summary.capitalize()}. {about}")
    _add_common(parser)
    add = parser.add_argument
    add("--method", default="antipure", metavar="NAME", help="protection, default: %(default)s")
    add("--eta", default=8, type=float, metavar="N", help="budget in steps of 1/255, default: %(default)s")
    add("--steps", default=100, type=int, metavar="N", help="of PGD, default: %(default)s")
    add(
        "--pipe", default="nano", metavar="MODEL", help="latent model of methods that need one, default: nano"
    )
    add("--jpeg", action="store_true", help="write JPEG, and tell how much of the protection it destroys")
    parser.set_defaults(run=_run, prepare=_protection, name="protect")

    summary = "purify photos as somebody would who wants to learn from them"
    parser = subparsers.add_parser("purify", help=summary, description=f"{summary.capitalize()}. {about}")
    _add_common(parser)
    add = parser.add_argument
    add("--purifier", default="gridpure20", metavar="NAME", help="such as jpeg75, diffpure100, gridpure2x20")
    parser.set_defaults(run=_run, prepare=_purification, name="purify", jpeg=False)


def _add_common(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("photos", nargs="+", metavar="PHOTO")
    add("--out", required=True, type=Path, metavar="DIR", help="folder of the results, made if need be")
    add("--seed", default=0, type=int, metavar="N", help="default: %(default)s")
    add("--ddpm", default="nano", metavar="MODEL", help="purifier's model, default: nano")
    add("--download", action="store_true", help="fetch a model that isn't on this machine; default: never")
    add("--precision", choices=PRECISIONS, help="of the purifier's model, default: the device's fastest")
    add(
        "--keep-metadata",
        action="store_true",
        help="keep the camera's EXIF entries, with date and place; default: no metadata in the results",
    )


def _run(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from .photo_run import plan_jobs, run_jobs
    from .processes import processes

    try:
        with processes() as group:
            _check(args)
            jobs = plan_jobs(args.photos, args.out, args.name, ".jpg" if args.jpeg else ".png")
            group.wait()  # all have planned before anyone begins
            mine = group.share(jobs)
            silent = True if group.local_index else None  # None: progress is shown on a terminal only
            settings, work = args.prepare(args, group.device, silent) if mine else ({}, None)
            counts = {"made": 0, "kept": 0, "failed": 0}
            for outcome in tqdm(
                run_jobs(mine, settings, work), total=len(mine), unit="photo", smoothing=0, disable=silent
            ):
                failed = outcome.status == "failed"
                line = ("error: " if failed else "") + outcome.message.replace("\n", " ")
                tqdm.write(line, file=sys.stderr if failed else sys.stdout)
                counts[outcome.status] += 1
            counts = {status: group.total(number) for status, number in counts.items()}
            if group.main:
                print(f"{args.out}:", ", ".join(f"{n} {status}" for status, n in counts.items()))
    except (ValueError, OSError, ModuleNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 1 if counts["failed"] else 0


def _check(args: argparse.Namespace) -> None:
    from .images import LOSSY

    if args.out.suffix.lower() in LOSSY:
        raise ValueError(
            f"--out {args.out}: JPEG discards the fine detail that a perturbation is made of. --out takes a "
            "folder and photos become .png; protect's --jpeg writes JPEG in spite of it"
        )
    if args.seed < 0:
        raise ValueError(f"--seed must be 0 or more, got {args.seed}")


def _protection(args: argparse.Namespace, device: str, silent: bool | None) -> tuple[dict[str, object], Work]:
    """The settings that a protected photo depends on, and what protects one."""
    import torch
    from tqdm import tqdm

    from .checkpoints import load_ddpm, load_stable_diffusion
    from .diffusion import sample_size
    from .digests import defaults
    from .images import quantise_within
    from .photos import at_least, kept_by_jpeg, save_photo
    from .protect import PROTECTIONS, needs, protect_steps

    if not 1 <= args.eta <= 255:
        raise ValueError(f"--eta must be 1 … 255 (steps of 1/255), got {args.eta:g}")
    if args.steps < 1:
        raise ValueError(f"--steps must be at least 1, got {args.steps}")
    any_size = ", ".join(name for name in PROTECTIONS if name != "none" and set(needs(name)) <= {"ddpm"})
    needed = needs(args.method)
    if "set_a" in needed:
        raise ValueError(
            f"--method {args.method} learns from other photos of the person, which this command "
            f"doesn't take; use {any_size}"
        )
    models, settings, side = {}, {}, 1
    if "ddpm" in needed:
        models["ddpm"] = load_ddpm(args.ddpm, device, _dtype(args), args.download)
        side = sample_size(models["ddpm"])
        settings |= _identity("ddpm", args.ddpm, models["ddpm"], ("unet",))
    if "pipe" in needed:
        models["pipe"] = load_stable_diffusion(args.pipe, device, download=args.download)
        settings |= _identity("pipe", args.pipe, models["pipe"], ("vae", "unet", "text_encoder"))
        latent_side = models["pipe"].unet.config.sample_size * models["pipe"].vae_scale_factor
    eta = args.eta / 255
    chosen = dict(eta=eta, steps=args.steps, seed=args.seed)
    fitting = {"batch": "auto"} if "ddpm" in needed else {}  # no setting: it moves last bits alone
    settings |= chosen | dict(method=args.method, keep_metadata=args.keep_metadata, jpeg=args.jpeg)
    settings["defaults"] = defaults(PROTECTIONS[args.method])  # another version's photo is made again

    def attack(x):
        states = protect_steps(args.method, x, **models, **chosen, **fitting)
        losses = 0  # summed where they are, so that the host waits for the device at the end alone
        for state in tqdm(states, total=args.steps, unit="step", leave=False, disable=silent):
            x_adv = state.x_adv
            losses = losses + sum(state.losses.values())
        # The sign of NaN is 0: the photo would stay as it is and look finished.
        if not torch.as_tensor(losses).isfinite().all():
            raise ValueError("the model gave NaN or infinite losses; try --precision float32")
        return x_adv.to(x).view_as(x)

    def work(photo, path):
        size = tuple(photo.x.shape[-2:])
        if "pipe" in models and size != (latent_side, latent_side):
            raise ValueError(
                f"{args.method} works at the latent model's size alone, {latent_side}×{latent_side}, "
                f"and this photo has {size[1]}×{size[0]}; at any size work {any_size}"
            )
        x_adv = quantise_within(at_least(side, photo.x, attack), photo.x, eta)
        save_photo(photo, x_adv, path, args.keep_metadata, args.jpeg)
        if not args.jpeg:
            return ""
        return f"JPEG leaves {kept_by_jpeg(photo.x, x_adv):.0%} of the perturbation; PNG leaves all"

    return settings, work


def _purification(
    args: argparse.Namespace, device: str, silent: bool | None
) -> tuple[dict[str, object], Work]:
    """The settings that a purified photo depends on, and what purifies one."""
    from .checkpoints import load_ddpm
    from .diffusion import sample_size
    from .photos import at_least, save_photo
    from .purifiers import DIFFUSION, parse_purifier, purify

    settings = dict(purifier=args.purifier, keep_metadata=args.keep_metadata)
    ddpm, side, fitting = None, 1, {}
    if parse_purifier(args.purifier)[0] in DIFFUSION:
        ddpm = load_ddpm(args.ddpm, device, _dtype(args), args.download)
        side, fitting = sample_size(ddpm), {"batch": "auto"}
        settings |= _identity("ddpm", args.ddpm, ddpm, ("unet",)) | dict(seed=args.seed)

    def wash(x):
        return purify(args.purifier, x, ddpm=ddpm, seed=args.seed, **fitting)

    def work(photo, path):
        washed = at_least(side, photo.x, wash)
        save_photo(photo, washed, path, args.keep_metadata)
        return ""

    return settings, work


def _dtype(args: argparse.Namespace):
    import torch

    return args.precision and getattr(torch, args.precision)


def _identity(option: str, name: str, pipe: Any, parts: tuple[str, ...]) -> dict[str, str]:
    from .digests import weights_digest

    return {
        option: name,
        f"{option}_weights": weights_digest(pipe, parts),
        f"{option}_precision": str(pipe.dtype),
    }
