"""OpenAI's guided-diffusion checkpoints, read from their original .pt layout into diffusers' classes.

Unconditional models whose residual blocks resample, with scale-shift normalisation: the 256 px model that
DiffPure and GrIDPure use, and its relatives.  (Dhariwal & Nichol 2021, arXiv 2105.05233)
"""

import re
from pathlib import Path

import torch

from ..runtime.checks import check_path
from ..runtime.pipelines import DDPMPipeline

# Of every layer: diffusers' name and the original one.
RESIDUAL = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
ATTENTION = {"group_norm": "norm", "qkv": "qkv", "to_out.0": "proj_out"}
ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
GROUPS = 32  # of every group normalisation in guided-diffusion
RELATIVES = {  # keys of other members of the family
    "label_emb.weight": "the model is class-conditional; use the unconditional one",
    "encoder_pool.0.weight": "the file holds a classifier, not a diffusion model",
}


def load_guided_diffusion(path: str | Path) -> DDPMPipeline:
    """A guided-diffusion .pt file as a `diffusers.DDPMPipeline` in float32, on the CPU, in evaluation mode.

    Only tensors are read; no code is run. A wrapper's prefix, such as DataParallel's "module.", is dropped.
    Raises ValueError, naming the file and the key, for a damaged file or another layout.
    """
    path = check_path(path)
    try:
        pipe = convert(_unwrapped(read_tensors(path)))
    except (ValueError, TypeError, IndexError, RuntimeError) as error:  # the last three: odd shapes
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from None
    pipe.unet.float()
    return pipe


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a .pt or .bin file by name. Raises ValueError for a damaged file or other contents."""
    path.open("rb").close()  # a file that isn't here, or may not be read, is named by the system
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # a damaged file can raise nearly anything
        if "GLOBAL" in str(error):
            reason = "it holds code or objects besides tensors, which are never run"
            raise ValueError(f"{reason}; save the model's state_dict() alone") from None
        raise ValueError("it is damaged, or isn't a PyTorch file; get this file again, whole") from None
    if not isinstance(stored, dict):
        raise ValueError(f"it holds a {type(stored).__name__}; save the model's state_dict() alone")
    for key, value in stored.items():
        if not (isinstance(key, str) and isinstance(value, torch.Tensor) and value.is_floating_point()):
            raise ValueError(f"its {key!r} isn't a tensor of weights; save the model's state_dict() alone")
    return stored


def _unwrapped(state_dict):
    """The state dict without the prefix that wrappers put before every name."""
    landmark = "time_embed.0.weight"
    prefixes = [key.removesuffix(landmark) for key in state_dict if key.endswith(landmark)]
    prefix = min(prefixes, key=len, default="")
    return {key.removeprefix(prefix): tensor.detach() for key, tensor in state_dict.items()}


def convert(state_dict: dict[str, torch.Tensor], head_channels: int = 64) -> DDPMPipeline:
    """A `DDPMPipeline` from guided-diffusion's state dict: 1000 linear steps, x̂0 clipped, σ as learned.

    Width, depth, levels and attention follow from the keys and shapes. The image size follows as well,
    because the coarsest level of the released models is 8×8.  (arXiv 2105.05233, appendix)
    head_channels: channels per attention head, which no shape reveals; 64 in the released 256 px models.
    Raises ValueError naming the key that is missing, unexpected or of another shape.
    """
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    for key in RELATIVES.keys() & state_dict.keys():
        raise ValueError(f"{key}: {RELATIVES[key]}")
    outputs = len({key.split(".")[1] for key in state_dict if key.startswith("output_blocks.")})
    # An output block that ends in an upsampling residual block ends its level.
    last = "output_blocks.{}.{}.in_layers.0.weight"
    ups = [i for i in range(outputs) if {last.format(i, 1), last.format(i, 2)} & state_dict.keys()]
    if not ups:
        raise ValueError("no output block ends in an upsampling residual block: not guided-diffusion's")
    depth = ups[0]  # residual blocks of a level on the way down
    levels = outputs // (depth + 1)
    firsts = [f"input_blocks.{1 + level * (depth + 1)}" for level in range(levels)]
    channels = [len(_get(state_dict, f"{first}.0.out_layers.3.weight")) for first in firsts]
    attends = [f"{first}.1.qkv.weight" in state_dict for first in firsts]
    for key in [*(f"{first}.1.qkv.weight" for first in firsts), "middle_block.1.qkv.weight"]:
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
    renamed = _renamed(state_dict, unet, _layers(depth, attends), head_channels)
    unet.load_state_dict(renamed, assign=True)
    variance = "learned_range" if out_channels == 2 * in_channels else "fixed_large"
    scheduler = DDPMScheduler(1000, beta_schedule="linear", clip_sample=True, variance_type=variance)
    return DDPMPipeline(unet.eval(), scheduler)


def _renamed(state_dict, unet, layers, head_channels):
    """{diffusers' name: tensor} with every tensor of the original used and of the shape expected."""
    renamed, used = {}, set()
    for name, expected in unet.state_dict().items():
        layer, _, leaf = name.rpartition(".")
        part = re.search(r"\bto_([qkv])$", layer)
        key = f"{layers[re.sub(r'to_[qkv]$', 'qkv', layer)]}.{leaf}"
        tensor = _get(state_dict, key)
        if part:
            # Rows: head by head, and within a head first its queries, then its keys, then its values.
            heads = tensor.reshape(-1, 3, head_channels, *tensor.shape[1:2])
            tensor = heads[:, "qkv".index(part[1])].flatten(0, 1)
        elif key.endswith(".proj_out.weight"):
            tensor = tensor.flatten(1)  # 1-D convolutions of width 1 are linear layers
        if tensor.shape != expected.shape:
            shapes = f"{tuple(tensor.shape)} where {tuple(expected.shape)} is expected"
            raise ValueError(f"{key}: its shape is {shapes}; the file holds another architecture")
        renamed[name] = tensor.contiguous()
        used.add(key)
    for key in state_dict.keys() - used:
        raise ValueError(f"{key}: unexpected key; the file holds another architecture")
    return renamed


def _layers(depth, attends):
    """{diffusers' layer: original layer} of every layer that has weights."""
    residuals = {"mid_block.resnets.0": "middle_block.0", "mid_block.resnets.1": "middle_block.2"}
    attentions = {"mid_block.attentions.0": "middle_block.1"}
    for level, attention in enumerate(attends):
        coarser = len(attends) - 1 - level  # on the way up both count from the coarsest level
        down = (f"down_blocks.{level}", "input_blocks", 1 + level * (depth + 1), depth)
        up = (f"up_blocks.{coarser}", "output_blocks", coarser * (depth + 1), depth + 1)
        for name, original, first, count in (down, up):
            for i in range(count):
                residuals[f"{name}.resnets.{i}"] = f"{original}.{first + i}.0"
                if attention:
                    attentions[f"{name}.attentions.{i}"] = f"{original}.{first + i}.1"
        residuals[f"{down[0]}.downsamplers.0"] = f"input_blocks.{down[2] + depth}.0"
        residuals[f"{up[0]}.upsamplers.0"] = f"output_blocks.{up[2] + depth}.{2 if attention else 1}"
    layers = dict(ENDS)
    for blocks, parts in ((residuals, RESIDUAL), (attentions, ATTENTION)):
        layers |= {f"{new}.{a}": f"{old}.{b}" for new, old in blocks.items() for a, b in parts.items()}
    return layers


def _get(state_dict, key):
    if key not in state_dict:
        raise ValueError(f"{key}: missing; the file isn't an unconditional guided-diffusion model")
    return state_dict[key]
