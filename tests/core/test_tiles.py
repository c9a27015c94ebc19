import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from antipure_lib.core.tiles import extract, merge, tile_count, tile_origins

sizes = st.tuples(st.integers(1, 6).map(lambda k: 2 * k), st.integers(0, 20), st.integers(0, 20)).map(
    lambda s: (s[0], s[0] + s[1], s[0] + s[2])
)


def test_published_geometry():
    assert tile_origins(512, 512, 256) == [(i, j) for i in (0, 128, 256) for j in (0, 128, 256)]
    assert tile_count(512, 512, 256) == 10
    assert tile_count(64, 64, 32) == 10


def test_one_tile_has_no_corner_tile():
    x = torch.rand(2, 3, 32, 32)
    assert tile_count(32, 32, 32) == 1
    assert torch.equal(extract(x, 32), x)


@pytest.mark.parametrize(
    ("height", "width", "rows", "columns"),
    [(33, 32, [0, 1], [0]), (40, 70, [0, 8], [0, 16, 32, 38]), (48, 64, [0, 16], [0, 16, 32])],
)
def test_last_tiles_are_aligned_with_the_border(height, width, rows, columns):
    assert tile_origins(height, width, 32) == [(i, j) for i in rows for j in columns]


@settings(deadline=None)
@given(sizes)
def test_tiles_cover_every_pixel_and_stay_inside(size):
    g, height, width = size
    covered = torch.zeros(height, width)
    for i, j in tile_origins(height, width, g):
        assert 0 <= i <= height - g and 0 <= j <= width - g
        covered[i : i + g, j : j + g] += 1
    assert covered.min() >= 1
    # A stride of g/2: neighbours overlap by half a tile or more.
    rows = sorted({i for i, _ in tile_origins(height, width, g)})
    assert all(b - a <= g // 2 for a, b in zip(rows, rows[1:], strict=False))


@settings(deadline=None)
@given(sizes)
def test_merge_undoes_extract(size):
    g, height, width = size
    x = torch.rand((2, 3, height, width), generator=torch.Generator().manual_seed(height))
    tiles = extract(x, g)
    assert tiles.shape == (2 * tile_count(height, width, g), 3, g, g)
    torch.testing.assert_close(merge(tiles, x.shape, g), x, rtol=0, atol=1e-6)


@settings(deadline=None, max_examples=20)
@given(sizes)
def test_merge_averages_pixel_by_pixel(size):
    g, height, width = size
    count, h = tile_count(height, width, g), g // 2
    tiles = torch.rand((count, 1, g, g), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = [[[] for _ in range(width)] for _ in range(height)]
    for tile, (i, j) in zip(tiles, tile_origins(height, width, g), strict=False):
        for r in range(g):
            for c in range(g):
                values[i + r][j + c].append(tile[0, r, c].item())
    if count > 1:
        for r in range(g):
            for c in range(g):
                row = r if r < h else height - g + r
                column = c if c < h else width - g + c
                values[row][column].append(tiles[-1, 0, r, c].item())
    expected = torch.tensor([[sum(v) / len(v) for v in row] for row in values], dtype=torch.float64)
    torch.testing.assert_close(merge(tiles, (1, 1, height, width), g)[0, 0], expected)


def test_corner_tile_is_made_of_the_four_corners():
    x = torch.arange(36.0).view(1, 1, 6, 6)
    corner = extract(x, 4)[-1, 0]
    assert corner.tolist() == [[0, 1, 4, 5], [6, 7, 10, 11], [24, 25, 28, 29], [30, 31, 34, 35]]


def test_gradients_add_up_where_tiles_overlap():
    x = torch.zeros(1, 1, 6, 6, requires_grad=True)
    extract(x, 4).sum().backward()
    expected = torch.tensor([1.0, 1, 2, 2, 1, 1])
    expected = expected[:, None] * expected[None]
    for rows in (slice(0, 2), slice(4, 6)):
        for columns in (slice(0, 2), slice(4, 6)):
            expected[rows, columns] += 1
    assert torch.equal(x.grad[0, 0], expected)


@pytest.mark.parametrize(
    ("height", "width", "g", "message"),
    [(31, 64, 32, "smaller than a tile"), (64, 64, 33, "even"), (9, 9, 0, "at least 1")],
)
def test_bad_sizes(height, width, g, message):
    with pytest.raises(ValueError, match=message):
        extract(torch.rand(1, 3, height, width), g)
