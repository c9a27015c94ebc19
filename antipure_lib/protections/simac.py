"""SimAC: ASPL at selected timesteps, with feature interference.  (Wang et al. 2024, arXiv 2312.07865)"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from ..core.pgd import Loss, PGDState, pgd
from ..customization import latent_diffusion as latent
from ..customization.latent_diffusion import PROMPT
from ..runtime.checks import check_ascent, check_count, check_counts, check_finite
from ..runtime.noise import randn
from ..runtime.pipelines import StableDiffusionPipeline
from ..runtime.unet import pipe_view
from .anti_dreambooth import Surrogate, climb


def simac_steps(
    pipe: StableDiffusionPipeline,
    x: torch.Tensor,  # 3×H×W or N×3×H×W in [0, 1], of the model's size
    set_a: torch.Tensor,  # clean photos of the subject, which the surrogate learns, [0, 1]
    eta: float = 16 / 255,  # budget in (0, 1], [0, 1] units
    steps: int = 100,  # of ASPL's PGD; the selection's gradients come on top
    step_size: float = 1 / 255,  # [0, 1] units
    seed: int = 0,
    prompt: str = PROMPT,
    round_steps: int = 6,  # of PGD per round
    interference: float = 1.0,  # weight of the feature term
    candidates: int = 5,  # these and the next two: see `greedy_timesteps`
    radius: int = 20,
    keep: int = 100,
    momentum: float = 0.0,
    random_start: bool = False,
    **learning,  # every further argument of `Surrogate`
) -> Iterator[PGDState]:
    """SimAC: ASPL at greedily selected timesteps, plus feature interference.  (arXiv 2312.07865, eq. 4-7)

    Maximises ‖ε_θ(z_t,t,c) − ε‖² + w·mean_l ‖f_l(x+δ) − f_l(x)‖², the same noise in both. Selected
    timesteps t are equally likely; see `last_block_features` for f_l. The authors' code takes the second term
    without its gradient, so that only the timesteps distinguish it from ASPL. Its budget is 8/255 here.
    Terms: "loss" and "features", the weight included. Raises ValueError for values outside their range.
    """
    images = latent.check_size(pipe, x, "x").to(pipe.unet.device)
    check_ascent(eta, steps, step_size, seed, momentum)
    check_counts(round_steps=round_steps)
    check_finite(interference=interference)
    selection = {"candidates": candidates, "radius": radius, "keep": keep}
    _check_selection(**selection)
    surrogate = Surrogate(pipe, set_a, prompt, seed, **learning)

    def run() -> Iterator[PGDState]:
        # As in the authors' code, the pretrained model selects.
        pretrained = pipe_view(latent.working_copy(pipe))
        select = (images, latent.text_embeddings(pretrained, [prompt]), eta, step_size, seed)
        timesteps = greedy_timesteps(pretrained, *select, **selection)
        del pretrained, select
        surrogate.begin()
        loss = interference_loss(surrogate, images, timesteps, interference)
        options = dict(eta=eta, step_size=step_size, seed=seed, momentum=momentum, random_start=random_start)
        yield from climb(surrogate, loss, images, round_steps, steps, **options)

    return run()


def interference_loss(
    surrogate: Surrogate, images: torch.Tensor, timesteps: torch.Tensor, weight: float = 1.0
) -> Loss:
    """SimAC's two terms as a loss for `pgd`: {"loss": (N,), "features": (N,)}.  (arXiv 2312.07865, eq. 4-7)

    images: clean, N×3×H×W in [0, 1]. timesteps: N×T bool, the selected ones.
    """
    pipe, chances = surrogate.attacked, timesteps.double()

    def loss(x_adv, generator):
        mean, std = latent.posterior(pipe, torch.cat([x_adv, images]))
        shape = (len(x_adv), *mean.shape[1:])
        noise, eps = (randn(shape, generator, mean.device).to(mean.dtype) for _ in range(2))
        t = torch.multinomial(chances, 1, generator=generator).flatten().to(mean.device)
        z0 = mean + std * torch.cat([noise, noise])
        with last_block_features(pipe.unet) as layers:
            both = torch.cat([eps, eps]), torch.cat([t, t])
            errors = latent.denoising_error(pipe, z0, *both, surrogate.embedding())
        pairs = [layer.chunk(2) for layer in layers]  # of x + δ and of x
        features = sum((ours - clean).square().mean((1, 2, 3)) for ours, clean in pairs) / len(pairs)
        return {"loss": errors[: len(x_adv)], "features": weight * features}

    return loss


def greedy_timesteps(
    pipe: StableDiffusionPipeline,
    x: torch.Tensor,  # N×3×H×W in [0, 1]
    embedding: Callable[[], torch.Tensor],  # the prompt's, 1×L×D
    eta: float = 16 / 255,  # budget, [0, 1] units
    step_size: float = 1 / 255,  # [0, 1] units
    seed: int = 0,
    candidates: int = 5,  # timesteps that are compared in a step, at least 1
    radius: int = 20,  # of the interval that is deleted in a step, 0 … (keep−1)/2
    keep: int = 100,  # at most so many timesteps remain
) -> torch.Tensor:
    """SimAC's adaptive greedy selection: timesteps at which a pixel's gradient is large.  (2312.07865)

    A step: draw a few of the remaining timesteps; the score of t is Σ|∂‖ε_θ(z_t,t,c) − ε‖²/∂x|. Delete the
    interval t_min − radius … t_min + radius around the lowest; move x by a PGD step at the highest.
    Returns N×T bool on the CPU, True for what remains. Raises ValueError for values outside their range.
    """
    _check_selection(candidates, radius, keep)
    every = torch.arange(pipe.scheduler.config.num_train_timesteps)
    remaining = torch.ones((len(x), len(every)), dtype=torch.bool)

    def error(images, t, generator):
        z0 = latent.sample_latents(pipe, images, generator)
        eps = randn(z0.shape, generator, z0.device).to(z0.dtype)
        return latent.denoising_error(pipe, z0, eps, t.flatten().to(z0.device), embedding())

    def loss(x_adv, generator):
        t = torch.multinomial(remaining.double(), candidates, replacement=True, generator=generator)
        copies = x_adv.detach().repeat_interleave(candidates, 0).requires_grad_()
        (gradient,) = torch.autograd.grad(error(copies, t, generator).sum(), copies)
        scores = gradient.abs().sum((1, 2, 3)).view_as(t).cpu()
        t_min = t.gather(1, scores.argmin(1, keepdim=True))
        t_max = t.gather(1, scores.argmax(1, keepdim=True))
        unfinished = remaining.sum(1, keepdim=True) > keep
        remaining[unfinished & ((every - t_min).abs() <= radius)] = False
        return error(x_adv, t_max, generator)

    # Every step takes t_min at least, so there are steps enough.
    states = pgd(loss, x, eta, len(every), step_size, seed)
    while (remaining.sum(1) > keep).any():
        next(states)
    return remaining


@contextmanager
def last_block_features(unet: torch.nn.Module) -> Iterator[list[torch.Tensor]]:
    """Inside the block: collects f_l, the residual branch's output of each ResNet layer in the last up block.

    In Stable Diffusion these are the decoder's layers 9, 10 and 11, SimAC's own.  (arXiv 2312.07865)
    """
    found: list[torch.Tensor] = []
    layers = [resnet.conv2 for resnet in unet.up_blocks[-1].resnets]
    handles = [layer.register_forward_hook(lambda *call: found.append(call[-1])) for layer in layers]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _check_selection(candidates, radius, keep) -> None:
    check_counts(candidates=candidates, keep=keep)
    check_count(radius, "radius", 0)
    if not 0 <= 2 * radius < keep:
        raise ValueError(f"radius must be 0 … (keep−1)/2, got {radius} with keep={keep}: too much is deleted")
