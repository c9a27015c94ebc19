"""Every flag is raised by the defect that it is for, and a healthy attack has none."""

import copy
from types import SimpleNamespace

import pytest
import torch

from antipure_lib.core.pgd import pgd
from antipure_lib.protections.controls import random_steps
from antipure_lib.protections.diagnose import diagnose
from antipure_lib.protections.registry import PROTECTIONS, protect_steps

ETA = 16 / 255
STRIPES = torch.tensor([1.0, -1.0]).repeat(8)


def noise(x, generator, size):
    return size * torch.randn(x.shape, generator=generator)


LOSSES = {
    "healthy": lambda x, generator: (x * (STRIPES + noise(x, generator, 0.5))).mean((1, 2, 3)),
    "noisy": lambda x, generator: (x * (STRIPES + noise(x, generator, 100.0))).mean((1, 2, 3)),
    "rounds": lambda x, generator: (x * STRIPES).mean((1, 2, 3)).round(),
    "half of it hidden": lambda x, generator: (x[..., :8] * STRIPES[:8]).mean((1, 2, 3)),
    "any direction": lambda x, generator: (x - 0.5).square().mean((1, 2, 3)),
}
FLAGS = {
    "healthy": [],
    "noisy": ["few draws", "no gain"],
    "rounds": ["zero gradient", "no gain"],
    "half of it hidden": ["zero gradient"],
    "any direction": ["no gain"],
}


def last(states):
    *_, state = states
    return state


@pytest.mark.parametrize("name", FLAGS)
def test_a_planted_defect_has_its_flag_and_no_other(name):
    x = torch.full((2, 3, 16, 16), 0.5)
    state = last(pgd(LOSSES[name], x, ETA, steps=20, step_size=2 / 255, random_start=True))
    flags = diagnose(state, x, ETA)
    assert [flag.name for flag in flags] == FLAGS[name]
    for flag in flags:
        assert str(flag) == f"{flag.name}: {flag.found}; {flag.remedy}"


def test_the_number_of_draws_that_it_asks_for_is_enough():
    """In a mean over k draws the noise of size 3 has the size 3/√k."""
    x = torch.full((2, 3, 16, 16), 0.5)

    def loss(x, generator, draws=1):
        return (x * (STRIPES + noise(x, generator, 3.0 / draws**0.5))).mean((1, 2, 3))

    def flags(momentum=0.0, **options):
        state = last(pgd(lambda *given: loss(*given, **options), x, ETA, 20, 2 / 255, momentum=momentum))
        return [flag for flag in diagnose(state, x, ETA, momentum) if flag.name == "few draws"]

    (flag,) = flags()
    draws = int(flag.remedy.split("noise_samples=")[1].split(",")[0])
    assert 7 <= draws <= 12  # 9 in the limit: then signal and noise have one size
    assert flags(draws=draws // 2) and not flags(draws=2 * draws) and not flags(momentum=0.9)


@pytest.mark.parametrize("balance", ["sum", "equal"])
def test_the_objective_is_what_the_step_climbed(balance):
    """Its gradient has the signs by which the step moved, and its value is the weighted sum of the losses."""
    x, weights = torch.rand((2, 3, 16, 16), generator=torch.Generator().manual_seed(0)) / 2 + 0.25, {"b": 3.0}

    def loss(x, generator):
        return {"a": (x * STRIPES).mean((1, 2, 3)), "b": x.square().mean((1, 2, 3))}

    first, second = pgd(loss, x, ETA, 2, 1 / 255, balance=balance, weights=weights)
    leaf = first.x_adv.clone().requires_grad_()
    value = second.objective(leaf, torch.Generator())
    (gradient,) = torch.autograd.grad(value.sum(), leaf)
    torch.testing.assert_close(second.x_adv - first.x_adv, gradient.sign() / 255)
    sizes = second.grad_sizes if balance == "equal" else {"a": 1, "b": 1}
    expected = second.losses["a"] / sizes["a"] + 3 * second.losses["b"] / sizes["b"]
    torch.testing.assert_close(value.detach(), expected)


@pytest.mark.parametrize("name", ["antipure", "photoguard"])
def test_protections_of_the_library_are_healthy(tiny_ddpm, pipe, pictures, name):
    x = pictures(2)
    state = last(protect_steps(name, x, ddpm=tiny_ddpm, pipe=pipe, eta=ETA, steps=12, step_size=4 / 255))
    assert diagnose(state, x, ETA, momentum=0.9) == []


def test_a_model_without_slope_is_found(make_ddpm, pictures):
    ddpm = make_ddpm()
    flat = SimpleNamespace(unet=copy.deepcopy(ddpm.unet), scheduler=ddpm.scheduler)
    with torch.no_grad():
        flat.unet.conv_out.weight.zero_()
    state = last(protect_steps("pixel-ddpm", pictures(1), ddpm=flat, steps=2))
    assert [flag.name for flag in diagnose(state, pictures(1))] == ["zero gradient", "no gain"]


@pytest.mark.parametrize("name", PROTECTIONS)
def test_whatever_climbs_can_be_diagnosed(tiny_ddpm, pipe, pictures, name):
    models = dict(ddpm=tiny_ddpm, pipe=pipe, set_a=pictures(2, seed=3))
    state = last(protect_steps(name, pictures(1), steps=2, **models, **PROTECTIONS[name].quick))
    if name == "none" or name.startswith("random"):
        with pytest.raises(ValueError, match="state holds no objective"):
            diagnose(state, pictures(1))
    else:
        assert isinstance(diagnose(state, pictures(1), draws=2), list)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"draws": 1}, "draws must be"), ({"momentum": 1}, "momentum must be"), ({"eta": 2}, "eta must be")],
)
def test_bad_arguments(pictures, options, message):
    (state,) = random_steps(pictures(1))
    with pytest.raises(ValueError, match=message):
        diagnose(state, pictures(1), **options)
