"""LPIPS: how different two images look to an AlexNet whose channels are weighted by people's judgements."""

from functools import cache

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from ..core.images import to_model
from ..models.embedded import data_path

MIN_SIDE = 31  # below it AlexNet's second pooling has nothing left to pool


class LPIPS(nn.Module):
    """Learned perceptual image patch similarity, version 0.1, AlexNet (Zhang et al. 2018, equation 1).

    d(x, y) = Σ_l mean_hw Σ_c w_lc (x̂_lchw − ŷ_lchw)². Activations x̂_l after the l-th of five ReLUs have
    length 1 over the channels. People's judgements gave the w_l ≥ 0.
    The weights are in data/judges, in fp16, and computed in fp32. Raises FileNotFoundError without them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 11, stride=4, padding=2)
        self.conv2 = nn.Conv2d(64, 192, 5, padding=2)
        self.conv3 = nn.Conv2d(192, 384, 3, padding=1)
        self.conv4 = nn.Conv2d(384, 256, 3, padding=1)
        self.conv5 = nn.Conv2d(256, 256, 3, padding=1)
        for layer, channels in enumerate((64, 192, 384, 256, 256), start=1):
            self.register_buffer(f"head{layer}", torch.empty(channels))
        # ImageNet's mean and standard deviation for images in [−1, 1], as rounded by the authors.
        for name, values in (("shift", [-0.030, -0.088, -0.188]), ("scale", [0.458, 0.448, 0.450])):
            channels = torch.tensor(values, dtype=torch.float32).view(3, 1, 1)
            self.register_buffer(name, channels, persistent=False)

        self.float()  # whatever torch's default precision is
        weights = load_file(data_path("judges", "lpips_alex.safetensors"))
        self.load_state_dict({name: weight.float() for name, weight in weights.items()})
        self.requires_grad_(False).eval()

    def features(self, x: torch.Tensor) -> list[torch.Tensor]:
        """The five activations of N×3×H×W images in [0, 1], each N×C×h×w."""
        h = (to_model(x.to(self.shift.dtype)) - self.shift) / self.scale
        h1 = F.relu(self.conv1(h))
        h2 = F.relu(self.conv2(F.max_pool2d(h1, 3, stride=2)))
        h3 = F.relu(self.conv3(F.max_pool2d(h2, 3, stride=2)))
        h4 = F.relu(self.conv4(h3))
        return [h1, h2, h3, h4, F.relu(self.conv5(h4))]

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Distances (N,) ≥ 0 of N×3×H×W images x and y in [0, 1]; differentiable in both.

        A feature covers more of a smaller picture, so compare only values of one size.
        Raises ValueError for a side under 31 px.
        """
        if min(x.shape[-2:]) < MIN_SIDE:
            shape = tuple(x.shape[-2:])
            raise ValueError(f"x: LPIPS needs sides of at least {MIN_SIDE} px, not {shape}; enlarge it")
        distance = torch.zeros(len(x), dtype=torch.float32, device=x.device)
        for layer, (a, b) in enumerate(zip(self.features(x), self.features(y), strict=True), start=1):
            head = getattr(self, f"head{layer}").view(1, -1, 1, 1)
            distance = distance + (head * (_unit(a) - _unit(b)).square()).sum(dim=1).mean(dim=(1, 2))
        return distance


@cache
def lpips_network() -> LPIPS:
    """The one network of this process, loaded when it is first used."""
    return LPIPS()


def _unit(h: torch.Tensor) -> torch.Tensor:
    # Added to the length, so that a position where no channel is active stays 0 instead of becoming NaN.
    return h / (torch.linalg.vector_norm(h, dim=1, keepdim=True) + 1e-10)
