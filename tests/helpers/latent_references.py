"""Losses of latent attacks, and DreamBooth, written with torch's and diffusers' own functions alone."""

import torch
import torch.nn.functional as F
from diffusers.training_utils import compute_snr
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR

PROMPT, CLASS_PROMPT = "a photo of sks person", "a photo of a person"


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


def min_snr(scheduler, t, gamma):
    """diffusers' weights of its training scripts' `--snr_gamma`, from its own `compute_snr`."""
    snr = compute_snr(scheduler, t)
    return snr.clamp(max=gamma) / (snr + (scheduler.config.prediction_type == "v_prediction"))


def train(pipe, subject, prior, g, steps, lr, text_lr=None, prior_weight=1, decay=False, gamma=5.0, warmup=0):
    """DreamBooth in place; returns the losses.

    The draws come in the library's order: photos, their latents' noise, prior images, their noise, ε, t.
    """
    parameters = [*pipe.unet.parameters(), *pipe.text_encoder.parameters()]
    text = {"params": pipe.text_encoder.parameters(), "lr": text_lr or lr}
    optimizer = torch.optim.AdamW([{"params": pipe.unet.parameters()}, text], lr=lr, weight_decay=0.01)
    schedules = [CosineAnnealingLR(optimizer, T_max=steps)] if decay else []
    if warmup > 1:
        schedules.append(LinearLR(optimizer, start_factor=1 / warmup, total_iters=warmup - 1))
    losses, n = [], len(subject)
    for _ in range(steps):
        z = [reference_latents(pipe, x[torch.randperm(len(x), generator=g)], g) for x in (subject, prior)]
        z0 = torch.cat(z).detach()
        eps = torch.randn(z0.shape, generator=g)
        first = torch.rand(1, generator=g).item()  # the rest of t a n-th apart, for both sets alike
        t = torch.tensor([int(1000 * ((first + k / n) % 1)) for k in range(n)] * 2)
        prompts = [PROMPT] * n + [CLASS_PROMPT] * n
        c = pipe.encode_prompt(prompts, "cpu", 1, do_classifier_free_guidance=False)[0]
        prediction = pipe.unet(pipe.scheduler.add_noise(z0, eps, t), t, c).sample
        v = pipe.scheduler.config.prediction_type == "v_prediction"
        target = pipe.scheduler.get_velocity(z0, eps, t) if v else eps
        errors = F.mse_loss(prediction, target, reduction="none").mean((1, 2, 3))
        errors = errors if gamma is None else errors * min_snr(pipe.scheduler, t, gamma)
        loss = errors[:n].mean() + prior_weight * errors[n:].mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        for schedule in schedules:
            schedule.step()
    return losses


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
