"""Every protection by name: budget, size, seeds, and what a call without its models says."""

from inspect import signature

import pytest
import torch
from examples import run_example
from tiny import tiny_stable_diffusion

from antipure_lib.core.antipure import antipure
from antipure_lib.core.pgd import PGDState
from antipure_lib.photos.pictures import load_image, save_image
from antipure_lib.protections import registry
from antipure_lib.protections.registry import PROTECTIONS, protect, protect_steps, protection_plan

NAMES = list(PROTECTIONS)


def takes(name):
    """The arguments that a protection names."""
    return signature(PROTECTIONS[name].steps).parameters


def quick(name):
    return {"steps": 2, **PROTECTIONS[name].quick}


@pytest.fixture(scope="module")
def models(tiny_ddpm):
    set_a = torch.rand((4, 3, 16, 16), generator=torch.Generator().manual_seed(3))
    return {"ddpm": tiny_ddpm, "pipe": tiny_stable_diffusion(), "set_a": set_a}


@pytest.mark.parametrize("name", NAMES)
def test_budget_shape_and_range_of_the_saved_file(models, pictures, tmp_path, name):
    """All the budget that the steps can reach is used, and no more; ten steps of the default 1/255."""
    x, eta = pictures(2), 5 / 255
    protected = protect(name, x, eta=eta, **models, **quick(name) | {"steps": 10})
    assert protected.shape == x.shape and protected.dtype == x.dtype
    for i in range(2):
        saved = load_image(save_image(protected[i], tmp_path / f"{i}.png"))
        assert torch.equal(saved, protected[i])
        largest = (saved - x[i]).abs().max()
        assert largest == 0 if name == "none" else 4.5 / 255 < largest <= eta + 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_bits(models, pictures, name):
    options = {**models, **quick(name)}
    random_state = torch.get_rng_state()
    a, b, c = (protect(name, pictures(2), seed=seed, **options) for seed in (1, 1, 2))
    assert torch.equal(random_state, torch.get_rng_state())
    assert torch.equal(a, b)
    assert torch.equal(a, c) == (name in ("none", "photoguard"))  # the two without randomness


@pytest.mark.parametrize("name", ["none", "random", "advdm", "aspl", "antipure", "end-to-end"])
def test_one_image_in_one_image_out(models, pictures, name):
    x = pictures(1)
    options = {**models, **quick(name)}
    single, batch = (protect(name, images, **options) for images in (x[0], x))
    assert single.shape == x[0].shape and torch.equal(single, batch[0])


@pytest.mark.parametrize("name", NAMES)
def test_needed_models_are_asked_for_and_others_are_not(models, pictures, name):
    given_models, options = {key: models[key] for key in PROTECTIONS[name].needs}, quick(name)
    assert isinstance(next(protect_steps(name, pictures(), **given_models, **options)), PGDState)
    for key in given_models:
        fewer = {other: value for other, value in given_models.items() if other != key}
        with pytest.raises(ValueError, match=f"'{name}' needs {key}: pass .*{key}=load_"):
            protect_steps(name, pictures(), **fewer, **options)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("pixel-ddpm", {"weights": (1, 0, 0)}),
        ("pfg", {"weights": (0, 1, 0)}),
        ("etg", {"weights": (0, 0, 1)}),
        ("antipure", {"weights": (0.1, 0.5, 0.5)}),
        ("antipure-pfg", {"weights": (0.1, 0, 0.5)}),
        ("antipure-etg", {"weights": (0.1, 0.5, 0)}),
        ("antipure-paper", {"weights": (1, 0.5, 0.5), "balance": "sum", "momentum": 0}),  # arXiv 2509.13922
    ],
)
def test_ablations_are_antipure_with_other_options(models, tiny_ddpm, pictures, name, options):
    x = pictures(2)
    expected = antipure(tiny_ddpm, x, steps=3, patch=4, seed=2, **options)
    assert torch.equal(protect(name, x, steps=3, seed=2, patch=4, **models), expected)


def test_the_example_of_a_new_protection_works():
    run_example(registry)
    assert "brighter" not in PROTECTIONS


@pytest.mark.parametrize("name", NAMES)
def test_a_plan_counts_what_a_step_sends_through_the_unet(models, pictures, name):
    chain, latent = name in ("end-to-end", "workflow"), "pipe" in PROTECTIONS[name].needs
    height, sizes = 16 if latent else 24, []  # a latent model takes its own size alone
    if PROTECTIONS[name].images is None:
        assert protection_plan(name, models["ddpm"], (2, height, 16)) is None
        return
    options = quick(name) | ({"t": 2, "stride": 2} if chain else {})
    options |= {"pipe": models["pipe"]} if latent else {}
    watch = models["ddpm"].unet.register_forward_hook(lambda unet, call, out: sizes.append(len(call[0])))
    next(protect_steps(name, pictures(2, height, 16), ddpm=models["ddpm"], batch=None, **options))
    watch.remove()
    plan = protection_plan(name, models["ddpm"], (2, height, 16))
    # AntiPure's two timesteps may be two calls; the exact gradient purifies x, x+δ, and x+δ once more.
    assert sum(sizes) == plan.images * (3 if chain else 1)


@pytest.mark.parametrize("name", [name for name in NAMES if "momentum" in takes(name)])
def test_bad_arguments_are_named_before_the_work(models, pictures, name):
    bad = {"step_size": -1, "momentum": 1, "x": pictures(1) * 255}
    for argument, value in bad.items():
        x = value if argument == "x" else pictures(1)
        options = {} if argument == "x" else {argument: value}
        with pytest.raises(ValueError, match=f"{argument} must"):
            protect_steps(name, x, **models, **quick(name) | options)
    if "pipe" in PROTECTIONS[name].needs:
        with pytest.raises(ValueError, match="x: 24×16 pixels.*size=16"):
            protect_steps(name, pictures(1, 24, 16), **models, **quick(name))


def test_errors(models, pictures):
    with pytest.raises(ValueError, match="unknown protection 'advdn'; the known ones are none, random"):
        protect("advdn", pictures(), **models)
    with pytest.raises(ValueError, match="less than 1/255"):
        protect("random", pictures(), eta=0.5 / 255)
    with pytest.raises(ValueError, match="must lie in"):
        protect("none", pictures() * 255)
    with pytest.raises(TypeError, match="colour"):
        protect("advdm", pictures(), colour="red", **models)
