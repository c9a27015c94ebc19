import math
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from antipure_lib.core.antipure import antipure, antipure_loss, antipure_steps
from antipure_lib.core.tiles import extract
from antipure_lib.photos.pictures import load_image, save_image
from antipure_lib.purifiers.diffpure import diffpure
from antipure_lib.purifiers.gridpure import gridpure_steps
from antipure_lib.runtime.micro_batch import in_parts
from antipure_lib.runtime.noise import randint, randn


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("size", [(16, 16), (24, 32)])
def test_terms_against_the_papers_formulas(tiny_ddpm, pictures, size):
    """L_ddpm, e^{ᾱ_t−1}·L_fre and e^{L_err} tile by tile, with diffusers' own noise and scipy's DCT."""
    import numpy as np
    import scipy.fft

    x, t_err = pictures(2, *size), 300
    with torch.no_grad():
        ours = antipure_loss(tiny_ddpm, size, patch=4, t_err=t_err)(x, generator(3))

    g = generator(3)
    tiles = extract(2 * x - 1, 16)
    t, eps = randint(0, 10, (len(tiles),), g), randn(tiles.shape, g)
    scheduler = tiny_ddpm.scheduler
    rows = []
    for tile, t_i, eps_i in zip(tiles, t, eps, strict=True):
        x_t = scheduler.add_noise(tile[None], eps_i[None], t_i[None])
        with torch.no_grad():
            right, wrong = tiny_ddpm.unet(x_t, t_i).sample, tiny_ddpm.unet(x_t, t_err).sample
        a = scheduler.alphas_cumprod[t_i].item()
        x0_hat = ((x_t - (1 - a) ** 0.5 * right) / a**0.5)[0].numpy()
        quarters = [
            4 / 4**2 * scipy.fft.dctn(channel[i : i + 4, j : j + 4], norm="ortho")[2:, 2:].sum()
            for channel in x0_hat
            for i in range(0, 16, 4)
            for j in range(0, 16, 4)
        ]
        rows.append(
            {
                "ddpm": (right - eps_i).square().mean().item(),
                "pfg": math.exp(a - 1) / (1 + math.exp(-np.mean(quarters))),
                "etg": math.exp(-(wrong - right).square().mean().item()),
            }
        )
    per_image = len(tiles) // 2
    for name in ("ddpm", "pfg", "etg"):
        expected = torch.tensor([row[name] for row in rows]).view(2, per_image).mean(1)
        torch.testing.assert_close(ours[name], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("term", ["ddpm", "pfg", "etg"])
def test_gradients_against_finite_differences(tiny_ddpm64, pictures, term, absolute):
    x = (0.25 + pictures(2, 16, 24) / 2).double()
    loss = antipure_loss(tiny_ddpm64, (16, 24), (term,), absolute=absolute, noise_samples=2)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(leaf, generator())[term].sum(), leaf)
    h = 1e-6
    for seed in range(3):
        direction = torch.randn(x.shape, generator=generator(seed), dtype=torch.float64)
        with torch.no_grad():
            up, down = (loss(x + s * h * direction, generator())[term].sum() for s in (1, -1))
        torch.testing.assert_close((gradient * direction).sum(), (up - down) / (2 * h), rtol=1e-5, atol=1e-9)


def test_small_batches_give_the_same_gradient(tiny_ddpm64, pictures):
    x = pictures(2, 24, 24).double()
    results = []
    for batch in (None, 3):
        leaf = x.clone().requires_grad_()
        model = in_parts(tiny_ddpm64, batch, 40, gradients=True)
        terms = antipure_loss(model, (24, 24))(leaf, generator())
        results.append(torch.autograd.grad(sum(term.sum() for term in terms.values()), leaf)[0])
    torch.testing.assert_close(*results, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("balance", ["sum", "equal"])
@pytest.mark.parametrize(
    ("weights", "name"), [((1.0, 0, 0), "ddpm"), ((0, 1.0, 0), "pfg"), ((0, 0, 1.0), "etg")]
)
def test_each_term_alone_rises(tiny_ddpm, pictures, weights, name, balance):
    x = pictures(2)
    options = {"eta": 0.2, "steps": 8, "step_size": 0.02, "weights": weights, "balance": balance}
    *_, state = antipure_steps(tiny_ddpm, x, **options)
    assert list(state.losses) == [name]
    loss = antipure_loss(tiny_ddpm, (16, 16), (name,), noise_samples=64)
    with torch.no_grad():
        before, after = (loss(y, generator(9))[name] for y in (x, state.x_adv))
    assert (after > before).all()


def test_one_call_or_two_give_the_same_gradients(tiny_ddpm64, pictures):
    x = pictures(2, 24, 24).double()
    results = []
    for one_call in (True, False):
        leaf = x.clone().requires_grad_()
        terms = antipure_loss(tiny_ddpm64, (24, 24), one_call=one_call)(leaf, generator())
        results.append(
            {k: torch.autograd.grad(v.sum(), leaf, retain_graph=True)[0] for k, v in terms.items()}
        )
    for name in ("ddpm", "pfg", "etg"):
        torch.testing.assert_close(results[0][name], results[1][name], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    ("balance", "weights", "forward", "backward"),
    [
        ("sum", (1, 0.5, 0.5), [2], [2]),  # tiles × timesteps of each pass through the UNet
        ("equal", (1, 0.5, 0.5), [1, 1], [1, 1, 1, 1]),  # PFG and L_ddpm one each, ETG both
        ("equal", (0, 0.5, 0.5), [1, 1], [1, 1, 1]),
        ("equal", (1, 0.5, 0), [1], [1, 1]),
        ("equal", (0, 0, 1), [2], [2]),
    ],
)
def test_no_pass_through_the_unet_that_no_term_needs(
    tiny_ddpm, pictures, balance, weights, forward, backward
):
    tiles, passed = 2 * 5, {"forward": [], "backward": []}

    def called(module, args, output):
        passed["forward"].append(len(output))
        output.register_hook(lambda gradient: passed["backward"].append(len(gradient)))

    handle = tiny_ddpm.unet.conv_out.register_forward_hook(called)
    try:
        list(antipure_steps(tiny_ddpm, pictures(2, 24, 24), steps=1, balance=balance, weights=weights))
    finally:
        handle.remove()
    assert passed == {"forward": [n * tiles for n in forward], "backward": [n * tiles for n in backward]}


def test_pairs_of_timesteps_share_a_batch_and_unused_terms_cost_nothing(tiny_ddpm, pictures):
    calls = []
    handle = tiny_ddpm.unet.register_forward_hook(lambda module, args, output: calls.append(args))
    try:
        options = {"steps": 2, "noise_samples": 3, "t_err": 777, "balance": "sum"}
        list(antipure_steps(tiny_ddpm, pictures(2, 24, 24), **options))
        tiles = 2 * 5 * 3
        assert [len(x_t) for x_t, _ in calls] == [2 * tiles] * 2
        for x_t, t in calls:
            assert torch.equal(*x_t.chunk(2))
            assert t[:tiles].max() < 10 and t[:tiles].unique().numel() > 1
            assert (t[tiles:] == 777).all()
        calls.clear()
        list(antipure_steps(tiny_ddpm, pictures(2, 24, 24), steps=1, weights=(1, 0.5, 0)))
        assert [len(x_t) for x_t, _ in calls] == [2 * 5]
    finally:
        handle.remove()


class HostWaits(TorchDispatchMode):
    """Notes operations that would make the host wait for a GPU: a number read back, one copied over."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket.__name__ in ("_local_scalar_dense", "lift_fresh", "nonzero", "equal"):
            self.found.append(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("loop", ["sum", "equal", "gridpure"])
def test_the_host_never_waits_inside_the_loops(tiny_ddpm, pictures, loop):
    x = pictures(2, 24, 24)
    if loop == "gridpure":
        states = gridpure_steps(tiny_ddpm, x, t=2, iterations=3)
    else:
        states = antipure_steps(tiny_ddpm, x, steps=3, balance=loop, momentum=0.9)
    next(states)  # constants are cached in the first step
    with HostWaits() as waits:
        next(states), next(states)
        assert waits.found == []
        torch.tensor([1.0]).item()
    assert waits.found == ["lift_fresh", "_local_scalar_dense"]  # it does notice


def test_gradients_are_taken_on_frozen_weights_and_the_model_never_changes(tiny_ddpm, pictures):
    parameters, seen = list(tiny_ddpm.unet.parameters()), []
    handle = tiny_ddpm.unet.register_forward_hook(
        lambda module, *_: seen.append(any(p.requires_grad for p in module.parameters()))
    )
    try:
        next(antipure_steps(tiny_ddpm, pictures(), steps=5))
    finally:
        handle.remove()
    assert seen == [False, False]
    assert all(p.requires_grad and p.grad is None for p in parameters)


@pytest.mark.parametrize("balance", ["sum", "equal"])
@pytest.mark.parametrize("size", [(16, 16), (17, 30)])
def test_budget_and_range_hold_for_the_saved_file(tiny_ddpm, pictures, tmp_path, size, balance):
    x, eta = pictures(2, *size), 6 / 255
    protected = antipure(tiny_ddpm, x, eta=eta, steps=8, balance=balance, momentum=0.5)
    assert protected.shape == x.shape
    for i in range(2):
        saved = load_image(save_image(protected[i], tmp_path / f"{i}.png"))
        assert torch.equal(saved, protected[i])
        assert (saved - x[i]).abs().max() <= eta + 1e-6
        assert (saved - x[i]).abs().max() > 5.5 / 255  # and is used


def test_same_seed_same_bits(tiny_ddpm, pictures):
    x = pictures(2, 24, 24)
    a, b, c = (antipure(tiny_ddpm, x, steps=3, seed=s) for s in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)
    crops = [antipure(tiny_ddpm, x, steps=3, seed=1, tiles=3) for _ in range(2)]
    assert torch.equal(*crops) and not torch.equal(a, crops[0])


def test_one_image_in_one_image_out_and_float_on_request(tiny_ddpm, pictures):
    x = pictures(1)
    single, batch = antipure(tiny_ddpm, x[0], steps=2), antipure(tiny_ddpm, x, steps=2)
    assert torch.equal(single, batch[0])
    fine = antipure(tiny_ddpm, x, steps=2, step_size=0.3 / 255, eight_bit=False)
    assert ((fine - x).abs().max() - 0.6 / 255).abs() < 1e-6
    leaf = x.clone().requires_grad_()
    assert not any(s.x_adv.requires_grad for s in antipure_steps(tiny_ddpm, leaf, steps=2))
    assert not antipure(tiny_ddpm, leaf, steps=1).requires_grad


def test_a_protected_image_can_be_purified(tiny_ddpm, pictures):
    x = pictures(2, 24, 24)
    assert diffpure(tiny_ddpm, antipure(tiny_ddpm, x, steps=1), t=2).shape == x.shape


def test_random_crops_reach_every_offset(tiny_ddpm, pictures):
    """The gradient of k crops is non-zero on k g×g squares at most, and at other places with another seed."""
    x = pictures(1, 40, 40)
    touched = []
    for seed in range(40):
        leaf = x.clone().requires_grad_()
        loss = antipure_loss(tiny_ddpm, (40, 40), ("ddpm",), tiles=1)(leaf, generator(seed))
        (gradient,) = torch.autograd.grad(loss["ddpm"].sum(), leaf)
        inside = gradient[0].abs().sum(0) > 0
        rows, columns = inside.any(1).nonzero(), inside.any(0).nonzero()
        assert rows.numel() <= 16 and columns.numel() <= 16
        touched.append((rows.min().item(), columns.min().item()))
    assert len(set(touched)) > 30


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eta": 0}, "eta must be in"),
        ({"eta": "8"}, "eta must be a finite number, got '8'"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"weights": (1, 1)}, "weights must be three finite numbers"),
        ({"weights": (float("nan"), 0, 0)}, "weights must be three finite numbers.*got .nan, 0, 0"),
        ({"noise_samples": 1.5}, "noise_samples must be a whole number, got 1.5"),
        ({"eta": 0.5 / 255}, "less than 1/255"),
        ({"eta": 16}, "eta must be in"),
        ({"steps": 0}, "steps"),
        ({"weights": (0, 0, 0)}, "at least one of the terms"),
        ({"patch": 7}, "patch must be even"),
        ({"patch": 12}, "patch must be even and divide the tile of 16"),
        ({"t_max": 0}, "t_max must be 1 … 1000"),
        ({"t_err": 1000}, "t_err must be 0 … 999"),
        ({"noise_samples": 0}, "noise_samples"),
        ({"tiles": 0}, "tiles must be"),
        ({"tiles": "some"}, "tiles must be"),
        ({"balance": "fair"}, "balance"),
        ({"x": torch.zeros(3, 15, 40)}, "smaller than a tile"),
        ({"x": torch.full((3, 16, 16), float("nan"))}, "NaN"),
    ],
    ids=lambda o: str(o)[:24],
)
def test_bad_arguments(tiny_ddpm, pictures, options, message):
    with pytest.raises(ValueError, match=message):
        antipure(tiny_ddpm, **({"x": pictures(1)} | options))


def test_another_kind_of_model_is_named(pictures):
    latent = SimpleNamespace(unet=None, vae=None)
    with pytest.raises(TypeError, match="ddpm must be a DDPMPipeline, got SimpleNamespace.*load_ddpm"):
        antipure(latent, pictures(1))
    with pytest.raises(TypeError, match="ddpm must be a DDPMPipeline, got NoneType"):
        antipure(None, pictures(1))
