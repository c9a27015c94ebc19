"""The workflow attack: its gradient against finite differences, memory, and bits."""

from types import SimpleNamespace

import pytest
import torch
from differences import assert_gradient
from latent_references import generator

from antipure_lib.core.images import quantise
from antipure_lib.customization.latent_diffusion import posterior
from antipure_lib.protections.workflow import MIXED, short_purifiers, workflow_loss, workflow_steps
from antipure_lib.purifiers.filters import jpeg, resize_and_back
from antipure_lib.runtime.unet import view


def encoder(pipe, dtype=torch.float32):
    """What the learner sees: the mean latent."""
    own = SimpleNamespace(vae=view(pipe.vae).to(dtype))
    return lambda y: posterior(own, y)[0]


@pytest.mark.parametrize("name", ["gridpure", "diffpure", "resize"])
def test_gradient_against_finite_differences(tiny_ddpm64, pipe, pictures, name):
    x = (0.25 + pictures(2) / 2).double()
    purifier = short_purifiers(tiny_ddpm64, 4, 2, 2)[name]
    loss = workflow_loss([purifier], encoder(pipe, torch.float64), x)
    signs = torch.randn(x.shape, generator=generator(1), dtype=x.dtype).sign()
    assert_gradient(lambda x: loss(x, generator()).sum(), x + 0.05 * signs)


def test_jpeg_is_exact_forward_and_the_identity_backward(tiny_ddpm, pictures):
    x = quantise(pictures(2))
    leaf = x.clone().requires_grad_()
    y = short_purifiers(tiny_ddpm)["jpeg"](leaf, 0)
    torch.testing.assert_close(y.detach(), jpeg(x), rtol=0, atol=1e-6)
    (gradient,) = torch.autograd.grad((y * torch.arange(y.numel()).view_as(y)).sum(), leaf)
    assert torch.equal(gradient, torch.arange(y.numel()).view_as(y).float())
    assert torch.equal(short_purifiers(tiny_ddpm)["resize"](x, 0), resize_and_back(x))


def test_draws_are_repeated_with_kept_ones_too(tiny_ddpm, pipe, pictures):
    def run(**more):
        chain = dict(t=2, stride=1, iterations=1) | more
        return list(workflow_steps(tiny_ddpm, pipe, pictures(2), steps=3, **chain))[-1].x_adv

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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"draws": 0}, "draws must be at least 1"),
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
