"""Losses of latent attacks, written with diffusers' own functions alone."""

import torch
import torch.nn.functional as F

PROMPT = "a photo of sks person"


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def embedding(pipe, prompt=PROMPT):
    return pipe.encode_prompt(prompt, "cpu", 1, do_classifier_free_guidance=False)[0].detach()


def reference_latents(pipe, x, g):
    posterior = pipe.vae.encode(2 * x - 1).latent_dist
    noise = torch.randn(posterior.mean.shape, generator=g)
    return pipe.vae.config.scaling_factor * (posterior.mean + posterior.std * noise)


def reference_error(pipe, z0, eps, t):
    """‖ε_θ − ε‖² or ‖v_θ − v‖², latent by latent."""
    scheduler, errors = pipe.scheduler, []
    for z, e, time in zip(z0[:, None], eps[:, None], t[:, None], strict=True):
        prediction = pipe.unet(scheduler.add_noise(z, e, time), time, embedding(pipe)).sample
        v = scheduler.config.prediction_type == "v_prediction"
        errors.append(F.mse_loss(prediction, scheduler.get_velocity(z, e, time) if v else e))
    return torch.stack(errors)


def reference_advdm(pipe, x, g, noise_samples=1):
    z0 = reference_latents(pipe, x, g).repeat_interleave(noise_samples, 0)
    eps = torch.randn(z0.shape, generator=g)
    t = torch.randint(0, 1000, (len(z0),), generator=g)
    return reference_error(pipe, z0, eps, t).view(len(x), noise_samples).mean(1)


def first_step(loss, x, step_size=1 / 255):
    """x after one sign step up the loss, and where its gradient is too small for its sign to be certain."""
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(leaf).sum(), leaf)
    certain = gradient.abs() > 1e-4 * gradient.abs().mean()
    assert certain.float().mean() > 0.99
    return (x + step_size * gradient.sign()).clamp(0, 1), certain


def assert_same_step(state, losses, stepped):
    expected, certain = stepped
    torch.testing.assert_close(state.losses, losses, rtol=1e-4, atol=1e-6)
    assert torch.equal(state.x_adv[certain], expected[certain])
