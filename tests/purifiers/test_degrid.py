"""The grid is found at any shift and taken out; photos without one stay nearly as they are."""

import pytest
import scipy.fft
import torch

from antipure_lib.core.images import quantise
from antipure_lib.models.embedded import load_faces
from antipure_lib.purifiers.degrid import degrid
from antipure_lib.purifiers.registry import purify


def grid(height, width, patch=8, shift=(0, 0)):
    """PFG's kernel by scipy: the inverse DCT of ones in the bottom-right quarter, its signs tiled."""
    quarter = torch.zeros(patch, patch)
    quarter[patch // 2 :, patch // 2 :] = 1
    sign = torch.from_numpy(scipy.fft.idctn(quarter.numpy(), norm="ortho")).sign().roll(shift, (0, 1))
    return sign.tile(-(-height // patch), -(-width // patch))[:height, :width]


@pytest.fixture(scope="module")
def faces():
    return 0.1 + 0.8 * torch.cat([load_faces("p01", "A")[:1], load_faces("p02", "A")[:1]])


@pytest.mark.parametrize("shift", [(0, 0), (3, 5)])
@pytest.mark.parametrize("amounts", [(1.0, 1.0, 1.0), (1.0, 0.5, -0.2)])
def test_a_planted_grid_is_taken_out_with_its_shift_and_colours(faces, shift, amounts):
    x, pattern = faces[..., :60, :52], grid(60, 52, shift=shift)
    delta = 8 / 255 * torch.tensor(amounts).view(3, 1, 1) * pattern
    left = degrid(x + delta) - degrid(x)
    assert left.norm() < 0.15 * delta.expand_as(left).norm()
    clean = (degrid(x) - x).abs().max()
    assert clean < 2 / 255


@pytest.mark.parametrize("patch", [4, 16])
def test_other_patches_have_their_own_grid(faces, patch):
    delta = 8 / 255 * grid(64, 64, patch)
    right, wrong = ((degrid(faces + delta, s) - faces).norm() for s in (patch, 8))
    assert right < 0.2 * delta.expand_as(faces).norm() < wrong


def test_the_name_takes_the_patch_and_small_images_stay(faces, pictures):
    file = quantise(faces)
    assert torch.equal(purify("degrid4", file), quantise(degrid(file, 4)))
    for size in ((1, 1), (7, 30)):
        x = pictures(1, *size)
        assert torch.equal(degrid(x), x)


@pytest.mark.parametrize("patch", [0, 7, -8])
def test_bad_patches(pictures, patch):
    with pytest.raises(ValueError, match="patch must be"):
        degrid(pictures(1), patch)
