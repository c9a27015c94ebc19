"""Models with the shapes of full-size ones and random weights: speed and memory don't depend on these."""

import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel


def guided_diffusion(device: torch.device, dtype: torch.dtype, width: int = 256) -> DDPMPipeline:
    """The shape of guided-diffusion's 256 px unconditional model; width: channels of its first level."""
    with torch.random.fork_rng(devices=[]), device:
        torch.manual_seed(0)
        unet = UNet2DModel(
            sample_size=256,
            out_channels=6,
            block_out_channels=tuple(width * k for k in (1, 1, 2, 2, 4, 4)),
            layers_per_block=2,
            down_block_types=("ResnetDownsampleBlock2D",) * 3 + ("AttnDownBlock2D",) * 3,
            up_block_types=("AttnUpBlock2D",) * 3 + ("ResnetUpsampleBlock2D",) * 3,
            attention_head_dim=min(64, width),
            resnet_time_scale_shift="scale_shift",
            downsample_type="resnet",
            upsample_type="resnet",
            norm_eps=1e-5,
        )
    torch.nn.Module.to(unet.eval().requires_grad_(False), dtype)  # diffusers' own `to` prints a warning
    return DDPMPipeline(unet, DDPMScheduler(variance_type="learned_range"))
