"""GrIDPure's tiling: overlapping g×g tiles at stride g/2, plus one tile made of the image's four corners.

(Zhao et al., "Can Protective Perturbation Safeguard Personal Data from Being Exploited by Stable Diffusion?",
CVPR 2024, arXiv 2312.00084.) A 512×512 image with g=256 gives nine tiles and the corner tile. The corner tile
sees the corners, which only one grid tile covers, in another surrounding.
"""

from collections.abc import Callable

import numpy as np
import torch

from ..runtime.checks import check_count, check_counts


def tile_origins(height: int, width: int, g: int) -> list[tuple[int, int]]:
    """Top-left pixels (row, column) of the grid tiles, row by row; every pixel is covered.

    Where the size isn't a multiple of the stride g/2, the last tiles are aligned with the border.
    Raises ValueError if g is odd or the image is smaller than a tile.
    """
    check_counts(height=height, width=width, g=g)
    if g % 2:
        raise ValueError(f"g must be even, since tiles overlap by half, got {g}")
    if min(height, width) < g:
        raise ValueError(
            f"the image ({height}×{width}) is smaller than a tile ({g}×{g}); enlarge or pad it first"
        )
    return [(row, column) for row in _starts(height, g) for column in _starts(width, g)]


def tile_count(height: int, width: int, g: int) -> int:
    """How many tiles `extract` makes of one image.

    An image of exactly one tile has no corner tile: it would be the same tile again.
    """
    grid = len(tile_origins(height, width, g))
    return grid + (grid > 1)


def extract(x: torch.Tensor, g: int) -> torch.Tensor:
    """Cut every image into its tiles, the corner tile last.  N×C×H×W → (N·T)×C×g×g, image by image."""
    origins = tile_origins(*x.shape[-2:], g)
    tiles = [x[..., i : i + g, j : j + g] for i, j in origins]
    if len(origins) > 1:
        h = g // 2
        top = torch.cat([x[..., :h, :h], x[..., :h, -h:]], -1)
        bottom = torch.cat([x[..., -h:, :h], x[..., -h:, -h:]], -1)
        tiles.append(torch.cat([top, bottom], -2))
    return torch.stack(tiles, 1).flatten(0, 1)


def merge(tiles: torch.Tensor, shape: tuple[int, ...], g: int) -> torch.Tensor:
    """Put tiles back where `extract` took them, averaging overlaps.  (N·T)×C×g×g → N×C×H×W = shape."""
    n, _, height, width = shape
    g = check_count(g, "g")
    tiles = tiles.unflatten(0, (n, -1))
    covered = tiles.new_ones((1, tiles.shape[1], 1, g, g))
    return _sum(tiles, height, width, g) / _sum(covered, height, width, g)


def _sum(tiles: torch.Tensor, height: int, width: int, g: int) -> torch.Tensor:
    # Slice by slice rather than by scatter_add, whose order of addition, hence last bit, varies on a GPU;
    # and by add_, since += would write every slice once more, onto itself.
    origins = tile_origins(height, width, g)
    out = tiles.new_zeros((tiles.shape[0], tiles.shape[2], height, width))
    for (i, j), tile in zip(origins, tiles.unbind(1), strict=False):
        out[..., i : i + g, j : j + g].add_(tile)
    if len(origins) > 1:
        h, corner = g // 2, tiles[:, -1]
        out[..., :h, :h].add_(corner[..., :h, :h])
        out[..., :h, -h:].add_(corner[..., :h, h:])
        out[..., -h:, :h].add_(corner[..., h:, :h])
        out[..., -h:, -h:].add_(corner[..., h:, h:])
    return out


def _starts(length: int, g: int) -> list[int]:
    starts = list(range(0, length - g + 1, g // 2))
    return starts if starts[-1] == length - g else [*starts, length - g]


def at_least(side: int, x: torch.Tensor, work: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """work(x) for an x of any size: sides shorter than `side` are continued by reflection and cut off again.

    x: 3×H×W or N×3×H×W; work keeps the shape. Nothing is stretched. A model's tiles need `side` pixels.
    Raises ValueError for a side that isn't a whole number of at least 1.
    """
    side = check_count(side, "side")
    rows, columns = (_reflected(length, side) for length in x.shape[-2:])
    top, left = ((max(side - length, 0)) // 2 for length in x.shape[-2:])
    done = work(x[..., rows, :][..., columns])
    return done[..., top : top + x.shape[-2], left : left + x.shape[-1]]


def _reflected(length: int, side: int) -> torch.Tensor:
    """Indices 0 … length−1, continued on both sides to at least `side` of them: 2 1 0 1 2 1 0."""
    missing = max(side - length, 0)
    return torch.from_numpy(np.pad(np.arange(length), (missing // 2, missing - missing // 2), mode="reflect"))
