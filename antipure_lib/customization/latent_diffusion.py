"""A latent diffusion model's formulas: latents, the loss, the prompts.  (Rombach et al., arXiv 2112.10752)"""

import copy
from collections.abc import Callable

import torch

from ..core.diffusion import add_noise, alpha_bars
from ..core.images import check_image, to_model
from ..runtime.checks import check_pipe
from ..runtime.noise import randint, randn
from ..runtime.pipelines import StableDiffusionPipeline
from ..runtime.unet import TOKENIZING, autocast

PROMPT = "a photo of sks person"  # the subject
CLASS_PROMPT = "a photo of a person"


def check_prompt(pipe: StableDiffusionPipeline, prompt: str) -> None:
    """Raises ValueError for anything but one text that the model reads whole; diffusers would cut it."""
    if not isinstance(prompt, str) or not prompt.strip():
        raise ValueError(f"prompt must be one text, got {prompt!r}; call again for each prompt")
    with TOKENIZING:
        tokens = len(pipe.tokenizer(prompt).input_ids)
    if tokens > (most := prompt_length(pipe)):
        raise ValueError(f"prompt has {tokens} tokens and the model reads {most}; shorten '{prompt[:40]}…'")


def prompt_length(pipe: StableDiffusionPipeline) -> int:
    """Tokens that the text encoder reads; a tokenizer without its own configuration claims far more."""
    return min(pipe.tokenizer.model_max_length, pipe.text_encoder.config.max_position_embeddings)


def posterior(pipe: StableDiffusionPipeline, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of q(z|x), scaled as the UNet sees latents; differentiable.

    x: N×3×H×W in [0, 1], on the VAE's device. Returns two tensors N×C×h×w.  (arXiv 2112.10752, section 3.1)
    """
    z = pipe.vae.encode(to_model(x)).latent_dist
    scale = pipe.vae.config.scaling_factor
    return scale * z.mean, scale * z.std


@torch.no_grad()
def latents(pipe: StableDiffusionPipeline, images: torch.Tensor, batch: int) -> tuple[torch.Tensor, ...]:
    """`posterior` in batches, without gradients. In training the VAE is frozen: once is enough."""
    found = [posterior(pipe, x.to(pipe.vae.device)) for x in images.split(batch)]
    return tuple(torch.cat(parts) for parts in zip(*found, strict=True))


def text_embeddings(
    pipe: StableDiffusionPipeline, prompts: list[str], dtype: torch.dtype | None = None
) -> Callable[[], torch.Tensor]:
    """The prompts' embeddings, P×L×D, again at every call if the encoder learns. Raises as `check_prompt`."""
    for prompt in prompts:
        check_prompt(pipe, prompt)
    options = {"padding": "max_length", "return_tensors": "pt"}
    with TOKENIZING:
        tokens = pipe.tokenizer(prompts, max_length=prompt_length(pipe), **options).input_ids
    tokens = tokens.to(pipe.unet.device)
    if any(p.requires_grad for p in pipe.text_encoder.parameters()):
        return lambda: pipe.text_encoder(tokens)[0]
    with torch.no_grad(), autocast(pipe, dtype):
        embeddings = pipe.text_encoder(tokens)[0]
    return lambda: embeddings


def working_copy(pipe: StableDiffusionPipeline) -> StableDiffusionPipeline:
    """A copy in float32 and evaluation mode, its VAE frozen, which may be trained."""
    trained = copy.deepcopy(pipe)
    for model in (trained.vae, trained.unet, trained.text_encoder):
        model.float().eval()
    trained.vae.requires_grad_(False)
    return trained


def check_size(pipe: StableDiffusionPipeline, images: torch.Tensor, name: str) -> torch.Tensor:
    """Images as N×3×H×W float32. Raises ValueError unless they have the model's size; as `check_pipe`."""
    check_pipe(pipe)
    images = check_image(images, name).detach().float()
    side = pipe.unet.config.sample_size * pipe.vae_scale_factor
    height, width = images.shape[-2:]
    if (height, width) != (side, side):
        remedy = f"load them with load_image(path, size={side})"
        raise ValueError(f"{name}: {height}×{width} pixels, but the model's are {side}×{side}; {remedy}")
    return images


def check_float32(pipe: StableDiffusionPipeline, x: torch.Tensor) -> torch.Tensor:
    """The images, N×3×H×W on the model's device. Raises as `check_size`, and for half precision."""
    images = check_size(pipe, x, "x")
    if torch.finfo(pipe.unet.dtype).bits < 32:
        kind = str(pipe.unet.dtype).removeprefix("torch.")
        raise ValueError(f"pipe computes in {kind}, too coarse for gradients; load it in torch.float32")
    return images.to(pipe.unet.device)


def sample_latents(
    pipe: StableDiffusionPipeline, x: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """z ~ q(z|x) = mean + std·noise, scaled as the UNet sees it; differentiable.  N×3×H×W → N×C×h×w."""
    mean, std = posterior(pipe, x)
    return mean + std * randn(mean.shape, generator, mean.device).to(mean.dtype)


def denoising_term(
    pipe: StableDiffusionPipeline,
    z0: torch.Tensor,
    c: torch.Tensor,
    generator: torch.Generator,
    noise_samples: int = 1,
) -> torch.Tensor:
    """`denoising_error` for ε ~ N(0, I) and t ~ U{0 … T−1}, the mean over noise_samples draws.  → (N,)"""
    z0 = z0.repeat_interleave(noise_samples, 0)
    eps = randn(z0.shape, generator, z0.device).to(z0.dtype)
    t = randint(0, pipe.scheduler.config.num_train_timesteps, (len(z0),), generator, z0.device)
    return denoising_error(pipe, z0, eps, t, c).unflatten(0, (-1, noise_samples)).mean(1)


def denoising_error(
    pipe: StableDiffusionPipeline, z0: torch.Tensor, eps: torch.Tensor, t: torch.Tensor, c: torch.Tensor
) -> torch.Tensor:
    """‖ε_θ(z_t,t,c) − ε‖², or ‖v_θ(z_t,t,c) − v‖² for a model that predicts v = √ᾱ_t·ε − √(1−ᾱ_t)·z0.

    (arXiv 2112.10752, eq. 3; v: arXiv 2202.00512, appendix D.) z0, eps: N×C×h×w, scaled latents and noise.
    t: LongTensor of N. c: the prompts' embeddings, N×L×D or 1×L×D. → (N,)
    """
    kind, alpha_bar = pipe.scheduler.config.prediction_type, alpha_bars(pipe.scheduler, z0.device)
    if kind not in ("epsilon", "v_prediction"):
        raise ValueError(f"the model predicts '{kind}'; use one that predicts epsilon or v_prediction")
    a = alpha_bar[t].view(-1, 1, 1, 1)
    target = eps if kind == "epsilon" else a.sqrt() * eps - (1 - a).sqrt() * z0
    z_t = add_noise(z0, eps, t, alpha_bar)
    prediction = pipe.unet(z_t, t, c.expand(len(z0), -1, -1)).sample.to(eps.dtype)
    return (prediction - target).square().mean((1, 2, 3))
