"""The gradient through purification against finite differences, diffusers' own chain and a whole graph."""

from types import SimpleNamespace

import pytest
import torch
from differences import assert_gradient
from diffusers import DDPMScheduler
from latent_references import generator

from antipure_lib.core.tiles import extract, merge
from antipure_lib.protections.end_to_end import end_to_end_loss, end_to_end_steps
from antipure_lib.purifiers.chain import purify_chain, respaced
from antipure_lib.purifiers.gridpure import gridpure_steps
from antipure_lib.runtime.micro_batch import in_parts
from antipure_lib.runtime.noise import image_generators
from antipure_lib.runtime.unet import view


def near(x, size=0.05):
    """x moved by random signs."""
    return (x + size * torch.randn(x.shape, generator=generator(1), dtype=x.dtype).sign()).clamp(0, 1)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(("size", "stride"), [((16, 16), 1), ((16, 24), 2)])
def test_gradient_against_finite_differences(tiny_ddpm64, pictures, size, stride, checkpointing):
    x = (0.25 + pictures(2, *size) / 2).double()
    chain = {"t": 4, "stride": stride, "iterations": 2, "noise_samples": 2, "checkpointing": checkpointing}
    loss = end_to_end_loss(tiny_ddpm64, x, **chain)
    assert_gradient(lambda x: loss(x, generator()).sum(), near(x))


def test_checkpointing_changes_nothing_but_the_work(tiny_ddpm, pictures):
    x, calls, results = pictures(2, 24, 24), [], []
    handle = tiny_ddpm.unet.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    try:
        for checkpointing, batch in ((False, 10), (True, 10), (True, 3)):
            calls.clear()
            model = in_parts(tiny_ddpm, batch, images=10, gradients=True)
            loss = end_to_end_loss(model, x, t=4, stride=2, iterations=3, checkpointing=checkpointing)
            leaf = near(x).requires_grad_()
            value = loss(leaf, generator())
            forward = sum(calls)
            (gradient,) = torch.autograd.grad(value.sum(), leaf)
            results.append((value.detach(), gradient))
            assert (sum(calls) > forward) == checkpointing
    finally:
        handle.remove()
    for value, gradient in results[1:]:
        torch.testing.assert_close(value, results[0][0], rtol=1e-5, atol=1e-8)
        torch.testing.assert_close(gradient, results[0][1], rtol=1e-3, atol=1e-9)


def test_first_iteration_is_gridpures(tiny_ddpm, pictures):
    """The seed's noise and the same formula: only the rounding to 8 bits is left out."""
    x = pictures(2, 24, 24)
    expected = next(gridpure_steps(tiny_ddpm, x, t=3, gamma=0.3, seed=5)).x
    unet = view(tiny_ddpm.unet, channels_last=True)  # as GrIDPure computes
    same = SimpleNamespace(unet=unet, scheduler=tiny_ddpm.scheduler)
    with torch.no_grad():
        assert torch.equal(purify_chain(same, x, [5], t=3, gamma=0.3), expected)


def test_respaced_chain_against_diffusers(tiny_ddpm, pictures):
    """t=12, stride=4: diffusers' DDPMScheduler walks the timesteps 11, 7, 3."""
    x = pictures(2)
    ours = purify_chain(respaced(tiny_ddpm, 4), x, [8], t=3, gamma=0.0)

    scheduler = DDPMScheduler()
    scheduler.set_timesteps(timesteps=[11, 7, 3])
    for i, own in enumerate(image_generators(8, 2)):
        y = 2 * x[i : i + 1] - 1
        noise = torch.randn(y.shape, generator=own)
        y = scheduler.add_noise(y, noise, torch.tensor([11]))
        for t in scheduler.timesteps:
            with torch.no_grad():
                y = scheduler.step(tiny_ddpm.unet(y, t).sample, t, y, generator=own).prev_sample
        torch.testing.assert_close(ours[i], (y[0] / 2 + 0.5).clamp(0, 1), rtol=0, atol=1e-4)


def test_loss_is_the_mean_square_of_what_purification_leaves(tiny_ddpm, pictures):
    x = pictures(2, 16, 24)
    x_adv = near(x)
    with torch.no_grad():
        loss = end_to_end_loss(tiny_ddpm, x, t=2, stride=1, iterations=2, gamma=0.2, noise_samples=2)
        ours = loss(x_adv, generator(3))
        seeds = torch.empty((2, 2), dtype=torch.long).random_(0, 2**31, generator=generator(3)).tolist()
        expected = torch.zeros(2)
        for first, second in seeds:
            purified = [x_adv, x]
            for seed in (first, second):
                purified = [0.8 * diffpure_tiles(tiny_ddpm, y, 2, seed) + 0.2 * y for y in purified]
            expected += (purified[0] - purified[1]).square().mean((1, 2, 3)) / 2
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-9)


def diffpure_tiles(ddpm, x, t, seed):
    """Image by image, with diffusers' scheduler."""
    scheduler, out = DDPMScheduler(), []
    for image, own in zip(x, image_generators(seed, len(x)), strict=True):
        y = extract(2 * image[None] - 1, 16)
        y = scheduler.add_noise(y, torch.randn(y.shape, generator=own), torch.tensor([t - 1]))
        for s in reversed(range(t)):
            y = scheduler.step(ddpm.unet(y, s).sample, s, y, generator=own).prev_sample
        out.append(merge((y / 2 + 0.5).clamp(0, 1), (1, *image.shape), 16))
    return torch.cat(out)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"t": 0}, "t must be"),
        ({"t": 1001}, "t must be"),
        ({"iterations": 0}, "iterations"),
        ({"gamma": 1.0}, "gamma"),
        ({"noise_samples": 0}, "noise_samples must be at least 1"),
        ({"stride": 0}, "stride must be at least 1"),
        ({"stride": 3}, "stride must divide t=10.*got 3"),
        ({"x": torch.rand(3, 15, 40)}, "smaller than a tile"),
    ],
    ids=lambda o: str(o)[:16],
)
def test_bad_arguments(tiny_ddpm, pictures, options, message):
    with pytest.raises(ValueError, match=message):
        end_to_end_steps(tiny_ddpm, **({"x": pictures(1)} | options))
