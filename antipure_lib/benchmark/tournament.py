"""A tournament: entries against the shipped protections and purifiers, on people kept apart for it.

An entry is a Python file that registers protections or purifiers (`protections/registry.py` and
`purifiers/registry.py` show how). It runs in a process of its own (`entrant.py`), with the rights of whoever
starts the tournament: run other people's files in a container.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import torch

from ..core.images import check_image, quantise_within
from ..core.pgd import fast
from ..models.embedded import identities
from ..runtime.checks import check_eta, check_path, check_positive
from .cells import Person, World, generated_images, load_person, protected_photos, purified_photos
from .entrant import Refused, enter
from .rows import Cell
from .run import make_world
from .tables import protection_name, purifier_name

RIVALS = ("none", "random", "advdm", "antipure", "workflow")
PURIFIERS = ("none", "gridpure2x20")
SEED = 0  # of everything in a tournament
SECONDS, MEMORY = 300, 8  # that a file may take per person on this machine; GiB, enforced on Linux

Photos = dict[tuple[str, str], torch.Tensor]  # (protection, person) → 4×3×H×W in [0, 1]


class Match(NamedTuple):
    """One protection against one purifier, for one person."""

    protection: str
    purifier: str
    person: str
    passed: float  # share of the images after LoRA that the judge takes for the person, [0, 1]
    lpips: float  # of the protected photos
    image: torch.Tensor  # one generated image, 3×H×W in [0, 1]


def hidden_people() -> list[str]:
    """The people of the tournament: the last third of the embedded ones."""
    people = identities()
    return people[-(len(people) // 3) :]


def tournament(
    files: Sequence[str | os.PathLike],
    cache: str | os.PathLike,  # folder of the stages' pictures: a stopped tournament goes on from there
    people: Sequence[str] = (),  # default: hidden_people()
    rivals: Sequence[str] = RIVALS,
    purifiers: Sequence[str] = PURIFIERS,
    eta: float = 16 / 255,  # budget of every protection, [0, 1] units
    seconds: float = SECONDS,
    memory: float = MEMORY,
    ddpm: str = "nano",
    pipe: str = "nano",
    **settings: int,  # `samples`, `learning` and, for shipped protections, `steps` as in the benchmark
) -> Iterator[tuple[list[Match], dict[str, str]]]:
    """Yield all matches so far, and the problems (entry → what went wrong), after each match.

    Every protection meets every purifier. An entry is called "file/name". The δ of a protection, shipped or
    not, with a higher LPIPS than AntiPure's is scaled down. Raises ValueError for values outside their range
    and for files that aren't there.
    """
    paths = [_existing(file) for file in files]
    eta, _ = check_eta(eta), check_positive(seconds=seconds, memory=memory)
    world, models = make_world(ddpm, pipe, cache, eta=eta, **settings), dict(ddpm=ddpm, pipe=pipe)
    persons = {name: load_person(name) for name in people or hidden_people()}
    common = dict(models, seed=SEED, eta=eta, memory=memory, seconds=seconds * len(persons))
    problems: dict[str, str] = {}
    protected: Photos = {
        (rival, name): _at_most(_shipped(rival, name, world), name, person, world)
        for rival in rivals
        for name, person in persons.items()
    }
    sets, purify_too = _given(persons), []
    for path in paths:
        entries, registered = _entries(path, "protections", sets, eta, problems, common)
        purify_too += [path] if registered["purifiers"] else []
        protected |= {
            (entry, name): _at_most(results["B", name], name, persons[name], world)
            for entry, results in entries.items()
            for name in persons
        }
    cells = [
        Cell(protection, kind, "lora", name, SEED) for protection, name in protected for kind in purifiers
    ]
    purified = {
        cell[:4]: purified_photos(cell, protected[cell.protect, cell.identity], world) for cell in cells
    }
    for path in purify_too:
        for entry, results in _entries(path, "purifiers", protected, 1.0, problems, common)[0].items():
            purified |= {(key[0], entry, "lora", key[1]): photos for key, photos in results.items()}
    matches: list[Match] = []
    for (protection, purifier, _, name), photos in purified.items():
        generated, _ = generated_images(Cell("none", "none", "lora", name, SEED), photos, world)
        passed = world.judge.same_person(generated, persons[name].set_c)
        lpips = _lpips(protected[protection, name], persons[name], world)
        matches.append(Match(protection, purifier, name, passed, lpips, generated[0]))
        yield matches, problems


def rehearse(
    file: str | os.PathLike,
    person: str = "",  # default: the first of hidden_people()
    eta: float = 16 / 255,
    ddpm: str = "nano",
    pipe: str = "nano",
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """A file's protected photos of one person, "file/name" → 4×3×H×W in [0, 1], and its problems.

    They are made and checked as in a `tournament`, whose arguments these are. Nothing is learned or scaled.
    """
    path, person, eta = _existing(file), person or hidden_people()[0], check_eta(eta)
    common = dict(ddpm=ddpm, pipe=pipe, seed=SEED, eta=eta, memory=MEMORY, seconds=SECONDS)
    problems: dict[str, str] = {}
    entries, _ = _entries(path, "protections", _given({person: load_person(person)}), eta, problems, common)
    return {entry: photos["B", person] for entry, photos in entries.items()}, problems


def standings(matches: Sequence[Match], problems: Mapping[str, str]) -> list[dict[str, object]]:
    """The ranks as rows of a table: protections, then purifiers, then the entries with a problem.

    A protection's score is the pass rate after the purifier that serves the abuser best, per person: small is
    good. A purifier's score is the mean pass rate over protections and people: large is good.
    """
    rows = []
    for kind, score, sign in (("protection", _worst, 1), ("purifier", _mean, -1)):
        names = dict.fromkeys(getattr(match, kind) for match in matches)
        own = {name: [match for match in matches if getattr(match, kind) == name] for name in names}
        for rank, name in enumerate(sorted(own, key=lambda name: sign * score(own[name])), 1):
            lpips = fmean(match.lpips for match in own[name]) if kind == "protection" else float("nan")
            title = protection_name(name) if kind == "protection" else purifier_name(name)
            row = {"kind": kind, "rank": rank, "name": title, "pass rate": score(own[name]), "LPIPS": lpips}
            rows.append(row | {"problem": ""})
    nothing = {"kind": "–", "rank": "last", "name": "", "pass rate": float("nan"), "LPIPS": float("nan")}
    return rows + [nothing | {"name": name, "problem": text} for name, text in problems.items()]


def _mean(own: Sequence[Match]) -> float:
    return fmean(match.passed for match in own)


def _worst(own: Sequence[Match]) -> float:
    people = dict.fromkeys(match.person for match in own)
    return fmean(max(match.passed for match in own if match.person == person) for person in people)


def _existing(file: str | os.PathLike) -> Path:
    path = check_path(file).absolute()
    if not path.is_file():
        raise ValueError(
            f"{file}: no such file; name a Python file that registers a protection or a purifier"
        )
    return path


def _given(persons: Mapping[str, Person]) -> Photos:
    """What a protection gets of each person: sets A and B."""
    return {(which, name): person[k] for name, person in persons.items() for k, which in enumerate("AB")}


def _shipped(rival: str, name: str, world: World) -> torch.Tensor:
    """A shipped protection's photos; AntiPure and the workflow attack in their fast settings."""
    if rival in ("antipure", "workflow"):
        settings = fast(world.eta)
        world = world._replace(
            eta=settings.pop("eta"), steps=settings.pop("steps"), options={rival: settings}
        )
    return protected_photos(Cell(rival, "none", "lora", name, SEED), load_person(name), world)


def _entries(path: Path, what: str, photos: Photos, eta: float, problems: dict, common: dict):
    """The checked photos by "file/name", and the names that the file registers. Problems are noted."""
    try:
        entries, registered = enter(path, what, photos, **common)
    except Refused as error:
        problems[path.stem] = str(error)
        return {}, {"purifiers": []}
    good = {}
    for name, results in entries.items():
        entry = f"{path.stem}/{name}"
        try:
            good[entry] = {key: _checked(made, photos[key], eta) for key, made in results.items()}
        except (ValueError, TypeError) as error:
            problems[entry] = str(error)
    return good, registered


def _checked(images: torch.Tensor, x: torch.Tensor, eta: float) -> torch.Tensor:
    """Raises ValueError for another shape, NaN, values outside [0, 1], and a perturbation over budget."""
    if images.shape != x.shape:
        raise ValueError(f"returned the shape {tuple(images.shape)} for photos of {tuple(x.shape)}")
    images = check_image(images, "the returned photos")
    worst = (images - x).abs().max().item()
    if worst > eta + 1e-4:
        raise ValueError(f"over budget: a pixel moved by {255 * worst:.1f}/255, allowed are {255 * eta:.1f}")
    return quantise_within(images, x, eta)


def _lpips(x_adv: torch.Tensor, person: Person, world: World) -> float:
    return float(world.judge.lpips(person.set_b, x_adv).mean())


def _at_most(x_adv: torch.Tensor, name: str, person: Person, world: World) -> torch.Tensor:
    """The photos with δ scaled down until their LPIPS is no higher than AntiPure's; by bisection."""
    if x_adv.equal(person.set_b):
        return x_adv
    limit, x = _lpips(_shipped("antipure", name, world), person, world), person.set_b
    low, high = 0.0, 2.0  # the first middle is δ itself
    for _ in range(7):
        middle = (low + high) / 2
        scaled = quantise_within(x + middle * (x_adv - x), x, world.eta)
        low, high = (middle, high) if _lpips(scaled, person, world) <= limit else (low, middle)
        if low == 1:
            return x_adv
    return quantise_within(x + low * (x_adv - x), x, world.eta)
