"""Results don't depend on torch's default precision, which a session may have changed."""

from contextlib import contextmanager

import pytest
import torch

import antipure_lib as ap
from antipure_lib.judges.lpips import LPIPS
from antipure_lib.runtime.noise import stratified


@contextmanager
def default(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def ascent(x, **options):
    def loss(x_adv, generator):
        return (x_adv * ap.randn(x.shape, generator)).mean((1, 2, 3))

    *_, last = ap.pgd(loss, x, steps=2, **options)
    return last.x_adv


RUNS = {
    "antipure": lambda ddpm, x: ap.antipure(ddpm, x, steps=2),
    "gridpure": lambda ddpm, x: ap.gridpure(ddpm, x, t=2, iterations=2),
    "freqpure": lambda ddpm, x: ap.freqpure(ddpm, x, t=2, rounds=1),
    "random start": lambda ddpm, x: ascent(x, random_start=True),
    "lpips": lambda ddpm, x: LPIPS()(x.repeat(1, 1, 2, 2), x.repeat(1, 1, 2, 2).roll(1, -1)),
    "ssim": lambda ddpm, x: ap.Judge().ssim(x, x.roll(1, -1)),
    "faces": lambda ddpm, x: ap.Judge().embed(x),
    "frequencies": lambda ddpm, x: torch.stack(ap.radial_spectrum(x[0] - 0.5, 4)),
    "timesteps": lambda ddpm, x: stratified(7, torch.Generator().manual_seed(0)),
    "last step": lambda ddpm, x: ap.reverse_step(x, x.flip(-1), 0, ddpm.scheduler),
    "blur": lambda ddpm, x: ap.gaussian_blur(x),
    "brisque": lambda ddpm, x: ap.brisque(x.repeat(1, 1, 2, 2)),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", RUNS)
def test_a_result_has_the_same_bits(tiny_ddpm, pictures, name, dtype):
    x = pictures(2)
    expected = RUNS[name](tiny_ddpm, x)
    with default(dtype):
        found = RUNS[name](tiny_ddpm, x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_a_loaded_model_has_the_same_weights(tiny_ddpm, tiny_folder, dtype):
    with default(dtype):
        loaded = ap.load_ddpm(tiny_folder, dtype=torch.float32)
    for key, weight in tiny_ddpm.unet.state_dict().items():
        assert loaded.unet.state_dict()[key].equal(weight), key
    assert loaded.scheduler.alphas_cumprod.equal(tiny_ddpm.scheduler.alphas_cumprod)
