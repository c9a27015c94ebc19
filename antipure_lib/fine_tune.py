"""What every customization and every attacked surrogate share: the training loop of a latent model.

The loss is E[ w_t·‖ε_θ(z_t,t,c) − ε‖² ] over latents z of a few images; the VAE is frozen.  (Rombach et al.
2022, arXiv 2112.10752, eq. 3, where w_t = 1; see `timestep_weights`)
"""

import copy
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch

from .checks import check_pipe
from .diffusion import add_noise, alpha_bars
from .generate import autocast
from .images import check_image, to_model
from .noise import randn, stratified

if TYPE_CHECKING:
    from diffusers import DDPMScheduler, StableDiffusionPipeline

# One pass over the weights instead of a dozen: on two cores a DreamBooth step takes a tenth less time.
FUSED_ADAM = partial(torch.optim.AdamW, fused=True)


class CustomizeState(NamedTuple):
    """What `dreambooth_steps` and `lora_steps` yield after each step."""

    step: int  # steps done: 1 … steps
    loss: torch.Tensor  # scalar, before this step's update: instance + prior_weight · prior
    losses: dict[str, torch.Tensor]  # its parts: "instance" and, if there is a prior, "prior"
    pipe: "StableDiffusionPipeline"  # the copy in training: one object, changed by the next step


def train_steps(
    pipe: "StableDiffusionPipeline",  # trained in place
    groups: dict[str, tuple[tuple[torch.Tensor, torch.Tensor], str]],  # name: (from `latents`, prompt)
    weights: dict[str, float],  # of the groups' losses; default 1 each
    steps: int,
    lr: float,
    batch: int,  # images of each group a step
    generator: torch.Generator,  # on the CPU, advanced by every step
    dtype: torch.dtype | None = None,
    decay: bool = False,  # the learning rates fall to 0 along a cosine
    text_lr: float | None = None,  # of the text encoder; None: lr
    adam: Callable[..., torch.optim.Optimizer] = FUSED_ADAM,
    snr_gamma: float | None = None,  # of `timestep_weights`; None: every timestep counts alike
    warmup: int = 0,  # steps over which the learning rates rise to their value
) -> Iterator[CustomizeState]:
    """AdamW on what asks for gradients in `pipe`: the loop that all customizations and surrogates share.

    A step's images, the same number of each group, stand at timesteps that are spread evenly over 0 … T−1
    (see `stratified`); one image is at a uniform timestep.
    """
    scheduler, device = pipe.scheduler, pipe.unet.device
    alpha_bar, timesteps = alpha_bars(scheduler, device), scheduler.config.num_train_timesteps
    weight = timestep_weights(scheduler, alpha_bar, snr_gamma)
    rates = {pipe.unet: lr, pipe.text_encoder: lr if text_lr is None else text_lr}
    learned = [
        {"params": [p for p in model.parameters() if p.requires_grad], "lr": rate}
        for model, rate in rates.items()
    ]
    optimizer = adam(learned)
    parameters = [p for group in learned for p in group["params"]]

    def factor(k: int) -> float:
        fall = 0.5 * (1 + math.cos(math.pi * k / steps)) if decay else 1.0
        return fall * min(1.0, (k + 1) / max(warmup, 1))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    # float16's small gradients would vanish: the scaler enlarges the loss. Elsewhere it does nothing.
    scaler = torch.amp.GradScaler(device.type, enabled=dtype is torch.float16)

    text = text_embeddings(pipe, [prompt for _, prompt in groups.values()], dtype)
    for step in range(1, steps + 1):
        z0 = torch.cat([_draw(mean, std, batch, generator) for (mean, std), _ in groups.values()])
        eps = randn(z0.shape, generator, device)
        t = (timesteps * stratified(batch, generator, device)).long().repeat(len(groups))
        z_t = add_noise(z0, eps, t, alpha_bar)
        with autocast(pipe, dtype):
            c = text().repeat_interleave(batch, dim=0)
            prediction = pipe.unet(z_t, t, c).sample.float()
        errors = (prediction - training_target(scheduler, z0, eps, alpha_bar[t])).square()
        errors = weight[t] * errors.flatten(1).mean(dim=1)
        losses = dict(zip(groups, errors.reshape(len(groups), -1).mean(dim=1), strict=True))
        loss = sum(weights.get(name, 1.0) * part for name, part in losses.items())
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        scaler.step(optimizer)
        scaler.update()
        schedule.step()
        optimizer.zero_grad()
        yield CustomizeState(
            step, loss.detach(), {name: part.detach() for name, part in losses.items()}, pipe
        )


def _draw(mean, std, batch, generator) -> torch.Tensor:
    """Latents of `batch` images: in one draw no image comes twice before every other has come once."""
    rounds = math.ceil(batch / len(mean))
    index = torch.cat([torch.randperm(len(mean), generator=generator) for _ in range(rounds)])[:batch]
    index = index.to(mean.device)
    return mean[index] + std[index] * randn((batch, *mean.shape[1:]), generator, mean.device)


def training_target(
    scheduler: "DDPMScheduler", z0: torch.Tensor, eps: torch.Tensor, alpha_bar: torch.Tensor
) -> torch.Tensor:
    """What the UNet is trained to predict: ε, or v = √ᾱ_t·ε − √(1−ᾱ_t)·z0. alpha_bar: ᾱ_t of each latent."""
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return eps
    if kind == "v_prediction":  # Salimans and Ho 2022, arXiv 2202.00512, appendix D
        a = alpha_bar.view(-1, 1, 1, 1)
        return a.sqrt() * eps - (1 - a).sqrt() * z0
    raise ValueError(f"the model predicts '{kind}'; use one that predicts epsilon or v_prediction")


def timestep_weights(
    scheduler: "DDPMScheduler", alpha_bar: torch.Tensor, snr_gamma: float | None
) -> torch.Tensor:
    """Min-SNR: min(SNR_t, γ)/SNR_t for a model that predicts ε, min(SNR_t, γ)/(SNR_t + 1) for one that
    predicts v, with SNR_t = ᾱ_t/(1−ᾱ_t); 1 for γ = None. alpha_bar: ᾱ_t of each weight wanted.

    What counts is then the error of ẑ0 times min(SNR_t, γ): a mistake in ε at a small t hardly changes the
    image, but costs the plain loss as much as one that does.  (Hang et al. 2023, arXiv 2303.09556, sect. 3.4)
    """
    if snr_gamma is None:
        return torch.ones_like(alpha_bar)
    snr = alpha_bar / (1 - alpha_bar)
    whole = snr + 1 if scheduler.config.prediction_type == "v_prediction" else snr
    return snr.clamp(max=snr_gamma) / whole


def posterior(pipe: "StableDiffusionPipeline", x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of the images' latents, scaled as the UNet sees them; differentiable.

    x: N×3×H×W in [0, 1], on the VAE's device. The VAE's q(z|x) is a Gaussian for each number of the latent.
    """
    z = pipe.vae.encode(to_model(x)).latent_dist
    scale = pipe.vae.config.scaling_factor
    return scale * z.mean, scale * z.std


@torch.no_grad()
def latents(
    pipe: "StableDiffusionPipeline", images: torch.Tensor, batch: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """`posterior` in batches, without gradients. In training the VAE is frozen: once is enough."""
    found = [posterior(pipe, x.to(pipe.vae.device)) for x in images.split(batch)]
    means, stds = zip(*found, strict=True)
    return torch.cat(means), torch.cat(stds)


def text_embeddings(
    pipe: "StableDiffusionPipeline", prompts: list[str], dtype: torch.dtype | None = None
) -> Callable[[], torch.Tensor]:
    """The prompts' embeddings, P×L×D: computed at every call where the encoder learns, otherwise once."""
    options = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
    length = pipe.tokenizer.model_max_length
    tokens = pipe.tokenizer(prompts, max_length=length, **options).input_ids.to(pipe.unet.device)
    if any(p.requires_grad for p in pipe.text_encoder.parameters()):
        return lambda: pipe.text_encoder(tokens)[0]
    with torch.no_grad(), autocast(pipe, dtype):
        embeddings = pipe.text_encoder(tokens)[0]
    return lambda: embeddings


def working_copy(pipe: "StableDiffusionPipeline") -> "StableDiffusionPipeline":
    """A copy in float32 and evaluation mode, its VAE frozen, which may be trained."""
    trained = copy.deepcopy(pipe)
    for model in (trained.vae, trained.unet, trained.text_encoder):
        model.float().eval()
    trained.vae.requires_grad_(False)
    return trained


def check_size(pipe: "StableDiffusionPipeline", images: torch.Tensor, name: str) -> torch.Tensor:
    """Images as N×3×H×W float32.

    Raises ValueError for bad ones and for those not of the model's size, TypeError for another model.
    """
    check_pipe(pipe)
    images = check_image(images, name).detach().float()
    side = pipe.unet.config.sample_size * pipe.vae_scale_factor
    height, width = images.shape[-2:]
    if (height, width) != (side, side):
        remedy = f"load them with load_image(path, size={side})"
        raise ValueError(f"{name}: {height}×{width} pixels, but the model's are {side}×{side}; {remedy}")
    return images
