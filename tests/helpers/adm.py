"""guided-diffusion's U-Net in plain torch, under its original keys: what the converter is compared with.

Written from the paper's description (2105.05233, appendix): a second opinion, for tests alone.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F


class Residual(nn.Module):
    """Scale-shift residual block; resample is None, "down" (mean of 2×2) or "up" (nearest), on both paths."""

    def __init__(self, width, out, embedding, resample=None):
        super().__init__()
        self.resample = resample
        self.in_layers = nn.ModuleDict(
            {"0": nn.GroupNorm(32, width), "2": nn.Conv2d(width, out, 3, padding=1)}
        )
        self.emb_layers = nn.ModuleDict({"1": nn.Linear(embedding, 2 * out)})
        self.out_layers = nn.ModuleDict({"0": nn.GroupNorm(32, out), "3": nn.Conv2d(out, out, 3, padding=1)})
        self.skip_connection = nn.Conv2d(width, out, 1) if width != out else None

    def sampled(self, x):
        if self.resample == "down":
            n, c, h, w = x.shape
            return x.reshape(n, c, h // 2, 2, w // 2, 2).mean((3, 5))
        if self.resample == "up":
            return x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        return x

    def forward(self, x, emb):
        h = self.in_layers["2"](self.sampled(F.silu(self.in_layers["0"](x))))
        scale, shift = self.emb_layers["1"](F.silu(emb))[..., None, None].chunk(2, dim=1)
        h = self.out_layers["3"](F.silu(self.out_layers["0"](h) * (1 + scale) + shift))
        x = self.sampled(x)
        return h + (x if self.skip_connection is None else self.skip_connection(x))


class Attention(nn.Module):
    """Self-attention over positions; the rows of qkv go head by head: its queries, its keys, its values."""

    def __init__(self, width, head_channels):
        super().__init__()
        self.head_channels = head_channels
        self.norm = nn.GroupNorm(32, width)
        self.qkv = nn.Conv1d(width, 3 * width, 1)
        self.proj_out = nn.Conv1d(width, width, 1)

    def forward(self, x, emb):
        flat = x.flatten(2)
        rows = self.qkv(self.norm(flat))
        outs = []
        for head in rows.split(3 * self.head_channels, dim=1):
            q, k, v = head.split(self.head_channels, dim=1)
            weight = (q.transpose(1, 2) @ k / math.sqrt(self.head_channels)).softmax(-1)
            outs.append(v @ weight.transpose(1, 2))
        return x + self.proj_out(torch.cat(outs, 1)).view_as(x)


class ADM(nn.Module):
    """attention: the levels (0 is the finest) with attention after each residual block."""

    def __init__(self, width=32, mults=(1, 2), depth=1, attention=(1,), head_channels=32, out_channels=6):
        super().__init__()
        self.width = width
        emb = 4 * width
        self.time_embed = nn.ModuleDict({"0": nn.Linear(width, emb), "2": nn.Linear(emb, emb)})

        def block(*modules):
            return nn.ModuleList(modules)

        channels, skips = width, [width]
        self.input_blocks = block(block(nn.Conv2d(3, width, 3, padding=1)))
        for level, mult in enumerate(mults):
            for _ in range(depth):
                here = block(Residual(channels, mult * width, emb))
                channels = mult * width
                if level in attention:
                    here.append(Attention(channels, head_channels))
                self.input_blocks.append(here)
                skips.append(channels)
            if level < len(mults) - 1:
                self.input_blocks.append(block(Residual(channels, channels, emb, "down")))
                skips.append(channels)
        self.middle_block = block(
            Residual(channels, channels, emb),
            Attention(channels, head_channels),
            Residual(channels, channels, emb),
        )
        self.output_blocks = block()
        for level, mult in reversed(list(enumerate(mults))):
            for layer in range(depth + 1):
                here = block(Residual(channels + skips.pop(), mult * width, emb))
                channels = mult * width
                if level in attention:
                    here.append(Attention(channels, head_channels))
                if level and layer == depth:
                    here.append(Residual(channels, channels, emb, "up"))
                self.output_blocks.append(here)
        self.out = nn.ModuleDict(
            {"0": nn.GroupNorm(32, width), "2": nn.Conv2d(width, out_channels, 3, padding=1)}
        )

    def forward(self, x, t):
        half = self.width // 2
        angles = t[:, None].float() * torch.exp(-math.log(10000) * torch.arange(half) / half)  # float32
        emb = torch.cat([angles.cos(), angles.sin()], 1).to(x)
        emb = self.time_embed["2"](F.silu(self.time_embed["0"](emb)))
        skips = []
        for i, here in enumerate(self.input_blocks):
            for module in here:
                x = module(x, emb) if i else module(x)
            skips.append(x)
        for module in self.middle_block:
            x = module(x, emb)
        for here in self.output_blocks:
            x = torch.cat([x, skips.pop()], 1)
            for module in here:
                x = module(x, emb)
        return self.out["2"](F.silu(self.out["0"](x)))


def random_adm(seed=0, **settings):
    """An ADM in float64 with every weight random, also those that training starts at zero or one."""
    model = ADM(**settings).double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator, dtype=p.dtype)
            if p.ndim > 1:
                p.copy_(noise / p[0].numel() ** 0.5)
            else:  # biases, and the gains of normalisation around one
                gain = name.endswith("weight")
                p.copy_(gain + 0.3 * noise)
    return model


class Code:
    """A part of a checkpoint whose unpickling writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")
