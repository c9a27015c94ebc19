"""The workflow attack: its gradient against finite differences, a planted weakness, memory, and bits."""

from types import SimpleNamespace

import pytest
import torch
from tiny import tiny_stable_diffusion

from antipure_lib.core.images import quantise
from antipure_lib.core.pgd import pgd
from antipure_lib.customization.latent_diffusion import posterior
from antipure_lib.protections.workflow import MIXED, short_purifiers, workflow_loss, workflow_steps
from antipure_lib.purifiers.filters import jpeg, resize_and_back
from antipure_lib.runtime.unet import view


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def pipe():
    return tiny_stable_diffusion()


def encoder(pipe, dtype=torch.float32):
    """What the learner sees: the mean latent."""
    own = SimpleNamespace(vae=view(pipe.vae).to(dtype))
    return lambda y: posterior(own, y)[0]


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", ["gridpure", "diffpure", "resize"])
def test_gradient_against_finite_differences(tiny_ddpm64, pipe, pictures, name, checkpointing):
    x = (0.25 + pictures(2) / 2).double()
    see = encoder(tiny_stable_diffusion(), torch.float64)
    purifier = short_purifiers(tiny_ddpm64, 4, 2, 2, checkpointing=checkpointing)[name]
    loss = workflow_loss([purifier], see, x)
    x_adv = (x + 0.05 * torch.randn(x.shape, generator=generator(1), dtype=x.dtype).sign()).clamp(0.01, 0.99)
    leaf, h = x_adv.clone().requires_grad_(), 1e-6
    (gradient,) = torch.autograd.grad(loss(leaf, generator()).sum(), leaf)
    assert gradient.abs().mean() > 0
    direction = torch.randn(x.shape, generator=generator(2), dtype=torch.float64)
    with torch.no_grad():
        up, down = (loss(x_adv + s * h * direction, generator()).sum() for s in (1, -1))
    torch.testing.assert_close((gradient * direction).sum(), (up - down) / (2 * h), rtol=1e-4, atol=1e-9)


def test_jpeg_is_exact_forward_and_the_identity_backward(tiny_ddpm, pictures):
    x = quantise(pictures(2))
    leaf = x.clone().requires_grad_()
    y = short_purifiers(tiny_ddpm)["jpeg"](leaf, 0)
    torch.testing.assert_close(y.detach(), jpeg(x), rtol=0, atol=1e-6)
    (gradient,) = torch.autograd.grad((y * torch.arange(y.numel()).view_as(y)).sum(), leaf)
    assert torch.equal(gradient, torch.arange(y.numel()).view_as(y).float())
    assert torch.equal(short_purifiers(tiny_ddpm)["resize"](x, 0), resize_and_back(x))


def test_a_planted_weakness_is_found(pictures):
    """A purifier that removes everything but one known pattern: the attack must put its budget there."""
    x, eta = 0.25 + pictures(2) / 2, 16 / 255
    pattern = torch.ones(16, 16)
    pattern[::2, ::2] = -1

    def copies_the_pattern(y, seed):
        blurred = resize_and_back(y.detach().clamp(0, 1), 0.25)
        amount = ((y - x) * pattern).mean((1, 2, 3), keepdim=True)
        return blurred.detach() + amount * pattern

    loss = workflow_loss([copies_the_pattern], lambda y: y, x)
    *_, last = pgd(loss, x, eta, steps=20, step_size=2 / 255, momentum=0.9, random_start=True)
    found = ((last.x_adv - x) * pattern).mean((1, 2, 3)).abs() / eta
    assert (found > 0.9).all()


def test_same_seed_same_bits_and_kept_draws(tiny_ddpm, pipe, pictures):
    x, options = pictures(2), dict(steps=3, step_size=4 / 255, t=2, stride=1, iterations=1)

    def run(**more):
        *_, last = workflow_steps(tiny_ddpm, pipe, x, **options | more)
        assert (last.x_adv - x).abs().max() <= 16 / 255 + 1e-6
        return last.x_adv

    assert torch.equal(run(), run())
    assert not torch.equal(run(), run(seed=1))
    assert not torch.equal(run(), run(draws=1))
    assert torch.equal(run(draws=2, purifiers=MIXED), run(draws=2, purifiers=MIXED))


def test_a_kept_draw_runs_the_clean_photo_once(tiny_ddpm, pipe, pictures):
    calls = []
    handle = tiny_ddpm.unet.register_forward_hook(lambda unet, call, out: calls.append(len(call[0])))
    options = dict(steps=4, t=2, stride=2, iterations=1, checkpointing=False)
    try:
        for draws in (None, 1):
            list(workflow_steps(tiny_ddpm, pipe, pictures(1), draws=draws, **options))
    finally:
        handle.remove()
    assert len(calls) == 2 * 4 + (4 + 1)


@pytest.mark.parametrize("iterations", [1, 5])
def test_checkpointing_keeps_the_activations_of_one_iteration(tiny_ddpm, pictures, iterations):
    """What autograd saves for the backward pass doesn't grow with the number of iterations, but for x."""
    saved = []

    def keep(tensor):
        saved.append(tensor.numel())
        return tensor

    x = pictures(1).requires_grad_()
    purify = short_purifiers(tiny_ddpm, 2, 2, iterations, checkpointing=True)["gridpure"]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        purify(x, 0)
    assert sum(saved) <= iterations * 2 * x.numel()


def test_it_beats_random_signs_over_three_purifications(tiny_ddpm, pipe, pictures):
    """On noise that the attack never saw. The purifier has random weights, so its noise is strong here."""
    x, eta, chain = pictures(2), 16 / 255, dict(t=100, stride=25, iterations=2)
    *_, state = workflow_steps(tiny_ddpm, pipe, x, eta=eta, steps=12, step_size=4 / 255, **chain)
    random = (x + eta * torch.randn(x.shape, generator=generator(1)).sign()).clamp(0, 1)
    judge = workflow_loss([short_purifiers(tiny_ddpm, **chain)["gridpure"]], encoder(pipe), x)
    for seed in (77, 78, 79):
        with torch.no_grad():
            ours, control = (judge(y, generator(seed)) for y in (state.x_adv, random))
        assert (ours > 1.2 * control).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"t": 0}, "t must be"),
        ({"iterations": 0}, "iterations"),
        ({"draws": 0}, "draws must be at least 1"),
        ({"gamma": 1.0}, "gamma"),
        ({"stride": 3}, "stride must divide t=10.*got 3"),
        ({"purifiers": ()}, "purifiers must name some of gridpure, diffpure, jpeg, resize"),
        ({"purifiers": ("gridpure", "soap")}, "purifiers must name some"),
        ({"eta": 16}, "eta"),
        ({"x": torch.rand(3, 24, 24)}, "model's are 16×16"),
    ],
    ids=lambda o: str(o)[:16],
)
def test_bad_arguments(tiny_ddpm, pipe, pictures, options, message):
    with pytest.raises(ValueError, match=message):
        workflow_steps(tiny_ddpm, pipe, **({"x": pictures(1)} | options))
