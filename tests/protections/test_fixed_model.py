"""Attacks on one fixed latent model against losses written with diffusers' own functions, on a tiny model."""

import copy

import latent_references as latent
import pytest
import torch
import torch.nn.functional as F
from differences import assert_gradient
from latent_references import assert_same_step, embedding, first_step, generator
from tiny import tiny_stable_diffusion

from antipure_lib.protections.advdm import advdm_loss, advdm_steps
from antipure_lib.protections.mist import MIST_WEIGHT, checkerboard, mist_steps
from antipure_lib.protections.photoguard import photoguard_steps


def mean_latents(pipe, x):
    return (pipe.vae.config.scaling_factor * pipe.vae.encode(2 * x - 1).latent_dist.mean).detach()


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("noise_samples", [1, 3])
def test_advdm_against_diffusers(pictures, prediction_type, noise_samples):
    pipe, x = tiny_stable_diffusion(prediction_type=prediction_type), pictures(2)
    state = next(advdm_steps(pipe, x, seed=4, noise_samples=noise_samples))

    def loss(x):
        return latent.reference_advdm(pipe, x, generator(4), noise_samples)

    assert_same_step(state, {"loss": loss(x).detach()}, first_step(loss, x))


def test_photoguard_against_diffusers(pipe, pictures):
    x = pictures(2)
    state = next(photoguard_steps(pipe, x))
    z_grey = mean_latents(pipe, torch.full((1, 3, 16, 16), 0.5))

    def loss(x):
        z = pipe.vae.config.scaling_factor * pipe.vae.encode(2 * x - 1).latent_dist.mode()
        return torch.stack([-F.mse_loss(z_i, z_grey[0]) for z_i in z])

    assert_same_step(state, {"loss": loss(x).detach()}, first_step(loss, x))


@pytest.mark.parametrize("weight", [MIST_WEIGHT, 30.0])
def test_mist_against_the_authors_objective(pipe, pictures, weight):
    """Their code minimises a sum over the latent minus w times a mean; w = 1e4 at 4·64·64 numbers."""
    x, seed = pictures(2), 2
    state = next(mist_steps(pipe, x, seed=seed, weight=weight))
    z_target = mean_latents(pipe, checkerboard(16)[None])
    numbers = z_target[0].numel()
    authors_weight = 1e4 * numbers / (4 * 64 * 64) if weight == MIST_WEIGHT else weight * numbers

    def terms(x):
        g = generator(seed)
        z0 = latent.reference_latents(pipe, x, g)
        eps = torch.randn(z0.shape, generator=g)
        t = torch.randint(0, 1000, (len(z0),), generator=g)
        return latent.reference_error(pipe, z0, eps, t), (z0 - z_target).square().sum((1, 2, 3))

    def loss(x):
        semantic, texture = terms(x)
        return authors_weight * semantic - texture

    semantic, texture = (term.detach() for term in terms(x))
    losses = {"semantic": semantic, "texture": -texture / numbers}
    assert_same_step(state, losses, first_step(loss, x))


def test_advdms_gradient_against_finite_differences(pipe, pictures):
    double = copy.deepcopy(pipe)
    for model in (double.vae, double.unet, double.text_encoder):
        model.double()
    c = embedding(double)
    loss = advdm_loss(double, lambda: c, noise_samples=2)
    assert_gradient(lambda x: loss(x, generator()).sum(), (0.25 + pictures(2) / 2).double())


@pytest.mark.parametrize(("cells", "cell"), [(1, 3), (8, 2), (5, 7)])
def test_checkerboard_alternates_in_both_directions(cells, cell):
    board = checkerboard(cells * cell, cells)
    expected = [[(i // cell + j // cell) % 2 for j in range(cells * cell)] for i in range(cells * cell)]
    assert torch.equal(board, torch.tensor(expected).float().expand(3, -1, -1))


@pytest.mark.parametrize("attack", [advdm_steps, mist_steps])
def test_a_bad_number_of_draws(pipe, pictures, attack):
    with pytest.raises(ValueError, match="noise_samples must be at least 1"):
        attack(pipe, pictures(), noise_samples=0)


def test_a_model_in_half_precision_or_of_another_kind_is_refused(pipe, pictures):
    half = copy.deepcopy(pipe)
    half.unet.bfloat16()
    with pytest.raises(ValueError, match="bfloat16.*torch.float32"):
        advdm_steps(half, pictures())
    with pytest.raises(TypeError, match="pipe must be a StableDiffusionPipeline, got NoneType"):
        advdm_steps(None, pictures())
    with pytest.raises(ValueError, match="predicts 'sample'"):
        next(advdm_steps(tiny_stable_diffusion(prediction_type="sample"), pictures()))
