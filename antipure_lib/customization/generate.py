"""Images of a prompt, from seeds, by the diffusers pipeline itself."""

import torch

from ..runtime.checks import check_count, check_counts, check_number
from ..runtime.micro_batch import MicroBatch
from ..runtime.noise import image_generators
from ..runtime.pipelines import StableDiffusionPipeline
from ..runtime.unet import autocast, pipe_view
from .latent_diffusion import check_prompt


@torch.no_grad()
def generate(
    pipe: StableDiffusionPipeline,
    prompt: str,
    n: int = 16,
    seed: int = 0,
    steps: int = 25,  # denoising steps of the pipeline's own scheduler
    guidance: float = 3.0,  # classifier-free guidance; 1 switches it off
    batch: int = 16,  # images at a time; halved when memory runs out
    dtype: torch.dtype | None = None,  # autocast to it, such as torch.bfloat16; None: the pipeline's own
) -> torch.Tensor:
    """Images of a prompt: N×3×H×W float32 in [0, 1], on the pipeline's device, of the model's own size.

    (Guidance: arXiv 2207.12598, eq. 6.) The noise of image i depends on `seed` and i alone, so the first four
    of n=16 are the four of n=4. Threads may share a pipeline.
    Raises ValueError for values outside their range, and for a prompt that the model can't read whole.
    """
    check_counts(n=n, batch=batch)
    steps = check_count(steps, "steps")  # the scheduler takes no tensor
    generators = image_generators(seed, n)
    guidance = check_number(guidance, "guidance")
    check_prompt(pipe, prompt)
    seen = pipe_view(pipe)
    seen.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": steps, "guidance_scale": guidance, "output_type": "pt"}
    images, at_a_time = [], MicroBatch(batch)

    def some():
        own = generators[len(images) :][: at_a_time.size]
        return seen([prompt] * len(own), generator=own, **options).images.float()

    with autocast(seen, dtype):
        while len(images) < n:
            images.extend(at_a_time.repeat(some, *generators[len(images) :][:batch]))
    return torch.stack(images)
