"""Do generated faces follow the prompt? Rules that name background and hair, and the measurement."""

import numpy as np
import torch
from diffusers import StableDiffusionPipeline

from antipure_lib import Judge, generate
from tools.faces.people import BACKGROUNDS, HAIR_COLOURS, sample_identity, sample_photo
from tools.faces.shading import build_person, head, render

# People whose renders give the rules their colours (the first half) and test them (the second).
HAIR_SEEDS = range(8100, 8300)


def corner_colour(images: torch.Tensor) -> torch.Tensor:
    """Median colour (N×3) of the two upper corners of 64 px portraits: the background."""
    left, right = images[..., 2:14, 2:10].flatten(2), images[..., 2:14, -10:-2].flatten(2)
    return torch.cat([left, right], 2).median(2).values


def background_names(images: torch.Tensor) -> list[str]:
    """The named background nearest to the corners, mostly by hue: the light should not matter."""

    def features(colours):
        level = colours.max(1, keepdim=True).values
        return torch.cat([(colours - level) / (level + 1e-3), 0.35 * level], 1)

    anchors = torch.tensor(list(BACKGROUNDS.values())).float() / 255
    nearest = torch.cdist(features(corner_colour(images)), features(anchors)).argmin(1)
    return [list(BACKGROUNDS)[k] for k in nearest.tolist()]


def hair_colour(images: torch.Tensor) -> torch.Tensor:
    """Mean colour (N×3) of what differs from the background above the forehead."""
    top = images[..., 3:18, 20:44].flatten(2)
    far = (top - corner_colour(images)[:, :, None]).abs().sum(1)
    weight = (far > 0.25).float() + 1e-4
    return (top * weight[:, None]).sum(2) / weight.sum(1, keepdim=True)


def hair_names(images: torch.Tensor, anchors: torch.Tensor) -> list[str]:
    """The hair colour whose anchor (5×3, in the order of HAIR_COLOURS) is nearest."""
    nearest = torch.cdist(hair_colour(images).sqrt(), anchors.sqrt()).argmin(1)
    return [list(HAIR_COLOURS)[k] for k in nearest.tolist()]


def renders() -> tuple[torch.Tensor, list[str], list[str]]:
    """Renders of people with hair on their foreheads, their hair colours and backgrounds by name."""
    images, hair, backgrounds = [], [], []
    for seed in HAIR_SEEDS:
        identity = sample_identity(seed, head().pairs)
        if identity["style"] in ("shaved", "receding"):
            continue
        photo = sample_photo(0, identity)
        images.append(torch.from_numpy(render(build_person(identity), photo, 64)).permute(2, 0, 1) / 255)
        hair.append(identity["hair_name"])
        backgrounds.append(photo["background_name"])
    return torch.stack(images), hair, backgrounds


def agreement(found: list[str], wanted: list[str]) -> float:
    """Share of equal names."""
    return float(np.mean([a == b for a, b in zip(found, wanted, strict=True)]))


def follow_prompts(judge: Judge, pipe: StableDiffusionPipeline, per_colour: int = 24) -> dict:
    """Share of samples with a face, and of samples whose hair and background follow the prompt.

    The rules that name the colours are also applied to renders, which shows how far to trust them.
    """
    people = generate(pipe, "a photo of a person", n=128, seed=5)
    images, hair, backgrounds = renders()
    half = len(images) // 2
    colours = hair_colour(images[:half])
    of_name = {name: colours[[h == name for h in hair[:half]]] for name in HAIR_COLOURS}
    anchors = torch.stack([found.median(0).values for found in of_name.values()])
    rules = dict(
        background=agreement(background_names(images), backgrounds),
        hair=agreement(hair_names(images[half:], anchors), hair[half:]),
    )
    background_follows, hair_follows = {}, {}
    for name in BACKGROUNDS:
        samples = generate(pipe, f"a photo of a person, {name} background", n=per_colour, seed=6)
        background_follows[name] = agreement(background_names(samples), [name] * per_colour)
    for name in HAIR_COLOURS:
        samples = generate(pipe, f"a photo of a person with long {name} hair", n=per_colour, seed=7)
        hair_follows[name] = agreement(hair_names(samples, anchors), [name] * per_colour)
    return dict(
        face_detected=1 - judge.fdfr(people),
        samples=len(people),
        background_follows=float(np.mean(list(background_follows.values()))),
        hair_follows=float(np.mean(list(hair_follows.values()))),
        background_by_colour=background_follows,
        hair_by_colour=hair_follows,
        rule_on_renders=rules,
        per_colour=per_colour,
    )
