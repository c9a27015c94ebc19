"""OpenAI's guided-diffusion checkpoints, read from their original .pt layout into diffusers' classes.

Unconditional models whose residual blocks resample, with scale-shift normalisation: the 256 px model that
DiffPure and GrIDPure use, and its relatives.  (Dhariwal & Nichol 2021, 2105.05233)
"""

import os
import pickle
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from diffusers import DDPMPipeline

RESIDUAL = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}

ENDS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}

GROUPS = 32  # of every group normalisation in guided-diffusion


def load_guided_diffusion(path: str | os.PathLike, head_channels: int = 64) -> "DDPMPipeline":
    """A guided-diffusion .pt file as a `diffusers.DDPMPipeline` in float32, on the CPU, in evaluation mode.

    Only tensors are read from the file; nothing in it is executed. head_channels: see `convert`.
    Raises ValueError, naming the file and the key, if it holds another layout or can't be read.
    """
    path = os.fspath(path)
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
        raise ValueError(
            f"{path} can't be read as plain tensors: it is damaged, isn't a PyTorch file, or holds code, "
            "which is never run; download it again from where its authors publish it"
        ) from error
    if not isinstance(stored, dict) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in stored.items()
    ):
        raise ValueError(f"{path} isn't a table of tensors; save the model's state_dict() alone")
    try:
        return convert(stored, head_channels)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def convert(state_dict: dict[str, torch.Tensor], head_channels: int = 64) -> "DDPMPipeline":
    """A `DDPMPipeline` from guided-diffusion's state dict: 1000 linear steps, x̂0 clipped, σ as learned.

    Width, depth, levels and the levels with attention follow from the keys and shapes, the image size from
    the rule of the released models that the coarsest level is 8×8.
    head_channels: channels of an attention head, which no shape tells; 64 in the released models at 256 px.
    Raises ValueError naming the key that is missing, unexpected or of another shape.
    """
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    _refuse_relatives(state_dict)
    outputs = _count(state_dict, "output_blocks")
    # An output block that ends in an upsampling residual block ends its level.
    ups = [i for i in range(outputs) if any(_up_key(i, j) in state_dict for j in (1, 2))]
    if not ups:
        raise ValueError("no output block with an upsampling residual block, so no levels can be told apart")
    depth = ups[0]  # residual blocks of a level on the way down
    levels = outputs // (depth + 1)
    firsts = [f"input_blocks.{1 + level * (depth + 1)}" for level in range(levels)]
    channels = [len(_get(state_dict, f"{first}.0.out_layers.3.weight")) for first in firsts]
    attends = [f"{first}.1.qkv.weight" in state_dict for first in firsts]
    for key in [f"{first}.1.qkv.weight" for first in firsts] + ["middle_block.1.qkv.weight"]:
        width = len(state_dict[key]) // 3 if key in state_dict else 0
        if width % head_channels:
            raise ValueError(f"{key}: {width} channels don't divide into heads of {head_channels}")

    in_channels = _get(state_dict, "input_blocks.0.0.weight").shape[1]
    out_channels = len(_get(state_dict, "out.2.weight"))
    with torch.device("meta"):  # the file's tensors become the weights: no second copy, no initialisation
        unet = UNet2DModel(
            sample_size=8 * 2 ** (levels - 1),
            in_channels=in_channels,
            out_channels=out_channels,
            block_out_channels=channels,
            layers_per_block=depth,
            down_block_types=["AttnDownBlock2D" if a else "ResnetDownsampleBlock2D" for a in attends],
            up_block_types=["AttnUpBlock2D" if a else "ResnetUpsampleBlock2D" for a in reversed(attends)],
            downsample_type="resnet",
            upsample_type="resnet",
            resnet_time_scale_shift="scale_shift",
            attention_head_dim=head_channels,
            norm_num_groups=GROUPS,
            attn_norm_num_groups=GROUPS,  # else diffusers leaves the middle attention without its norm
            norm_eps=1e-5,
            flip_sin_to_cos=True,  # cosines first
            freq_shift=0,
        )
    unet.load_state_dict(_rename(state_dict, unet, depth, attends, head_channels), assign=True)
    scheduler = DDPMScheduler(
        num_train_timesteps=1000,
        beta_schedule="linear",
        clip_sample=True,
        variance_type="learned_range" if out_channels == 2 * in_channels else "fixed_large",
    )
    pipe = DDPMPipeline(unet.eval(), scheduler)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _refuse_relatives(state_dict):
    """Other members of the family have keys that say so."""
    relatives = {
        "label_emb.weight": "the model is class-conditional; use the unconditional one",
        "encoder_pool.0.weight": "the file holds a classifier, not a diffusion model",
    }
    for key, reason in relatives.items():
        if key in state_dict:
            raise ValueError(f"{key}: {reason}")


def _rename(state_dict, unet, depth, attends, head_channels):
    """{diffusers' name: tensor} with every tensor of the original used once and of the shape expected."""
    expected = {key: value.shape for key, value in unet.state_dict().items()}
    unused = set(state_dict)
    renamed = {}

    def put(old, new, tensor=None):
        tensor = _get(state_dict, old) if tensor is None else tensor
        if tensor.shape != expected[new]:
            shapes = f"{tuple(tensor.shape)} where {tuple(expected[new])} is expected"
            raise ValueError(f"{old}: its shape is {shapes}; the file holds another architecture")
        renamed[new] = tensor.contiguous()
        unused.discard(old)

    for old, new, kind in _modules(depth, attends):
        for leaf in ("weight", "bias"):
            if kind == "plain":
                put(f"{old}.{leaf}", f"{new}.{leaf}")
            elif kind == "residual":
                for a, b in RESIDUAL.items():
                    if f"{new}.{b}.{leaf}" in expected:  # conv_shortcut only where the width changes
                        put(f"{old}.{a}.{leaf}", f"{new}.{b}.{leaf}")
            else:
                put(f"{old}.norm.{leaf}", f"{new}.group_norm.{leaf}")
                # The original's 1-D convolutions of width 1 are diffusers' linear layers.
                flat = _get(state_dict, f"{old}.proj_out.{leaf}")
                put(
                    f"{old}.proj_out.{leaf}",
                    f"{new}.to_out.0.{leaf}",
                    flat.flatten(1) if leaf == "weight" else flat,
                )
                qkv = _get(state_dict, f"{old}.qkv.{leaf}")
                # Rows: head by head, and within a head first its queries, then its keys, then its values.
                heads = qkv.reshape(-1, 3, head_channels, *qkv.shape[1:2])
                for part, name in enumerate(("to_q", "to_k", "to_v")):
                    put(f"{old}.qkv.{leaf}", f"{new}.{name}.{leaf}", heads[:, part].flatten(0, 1))
    if unused:
        raise ValueError(f"{min(unused)}: unexpected key; the file holds another architecture")
    return renamed


def _modules(depth, attends):
    """Yields (original prefix, diffusers' prefix, "plain", "residual" or "attention") of every module."""
    for old, new in ENDS.items():
        yield old, new, "plain"
    levels = len(attends)
    for level, attention in enumerate(attends):
        down = f"down_blocks.{level}"
        for layer in range(depth):
            old = f"input_blocks.{1 + level * (depth + 1) + layer}"
            yield f"{old}.0", f"{down}.resnets.{layer}", "residual"
            if attention:
                yield f"{old}.1", f"{down}.attentions.{layer}", "attention"
        if level < levels - 1:
            yield f"input_blocks.{(level + 1) * (depth + 1)}.0", f"{down}.downsamplers.0", "residual"
    yield "middle_block.0", "mid_block.resnets.0", "residual"
    yield "middle_block.1", "mid_block.attentions.0", "attention"
    yield "middle_block.2", "mid_block.resnets.1", "residual"
    for level, attention in enumerate(reversed(attends)):
        up = f"up_blocks.{level}"
        for layer in range(depth + 1):
            old = f"output_blocks.{level * (depth + 1) + layer}"
            yield f"{old}.0", f"{up}.resnets.{layer}", "residual"
            if attention:
                yield f"{old}.1", f"{up}.attentions.{layer}", "attention"
        if level < levels - 1:
            yield f"{old}.{2 if attention else 1}", f"{up}.upsamplers.0", "residual"


def _count(state_dict, name):
    """How many numbered blocks `name` has."""
    numbers = [int(key.split(".")[1]) for key in state_dict if key.startswith(f"{name}.")]
    return max(numbers, default=-1) + 1


def _up_key(block, place):
    return f"output_blocks.{block}.{place}.in_layers.0.weight"


def _get(state_dict, key):
    if key not in state_dict:
        raise ValueError(f"{key}: missing; the file isn't an unconditional guided-diffusion model")
    return state_dict[key]
