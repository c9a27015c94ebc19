"""The types of diffusers' pipelines, for annotations only: to import diffusers takes seconds."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffusers import DDPMPipeline, DDPMScheduler, StableDiffusionPipeline
else:
    DDPMPipeline = DDPMScheduler = StableDiffusionPipeline = Any
