"""What low precision and the order of weights in memory change: nothing that matters."""

import pytest
import torch

import antipure_lib as ap


@pytest.mark.parametrize("balance", ["sum", "equal"])
def test_images_protected_in_bfloat16_are_as_good_as_in_float32(balance):
    """Judged in float32, on the same noise: every term, and what survives purification, within 2 %."""
    x = ap.load_faces("p01")[:1, :, 16:48, 16:48]  # one tile
    precise, low = (ap.load_ddpm(device="cpu", dtype=dtype) for dtype in (torch.float32, torch.bfloat16))
    made = [ap.antipure(ddpm, x, steps=4, step_size=4 / 255, balance=balance) for ddpm in (precise, low)]
    assert not torch.equal(*made)
    loss = ap.antipure_loss(precise, x.shape[-2:], noise_samples=8)
    with torch.no_grad():
        clean, *terms = (loss(y, torch.Generator().manual_seed(7)) for y in (x, *made))
    for name in clean:
        torch.testing.assert_close(terms[1][name], terms[0][name], rtol=0.02, atol=0)
    assert (terms[0]["ddpm"] > 2 * clean["ddpm"]).all()  # there was something to lose
    left = [ap.survival(lambda y, seed: ap.diffpure(precise, y, t=10, seed=seed), x, y) for y in made]
    torch.testing.assert_close(*left, rtol=0.02, atol=0)


def test_a_channels_last_model_can_be_customized(pictures):
    from tiny import tiny_stable_diffusion

    states = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        pipe = tiny_stable_diffusion()
        pipe.unet.to(memory_format=memory_format)
        steps = ap.dreambooth_steps(pipe, pictures(2), steps=2, prior_images=pictures(2, seed=1))
        states.append(list(steps)[-1])
    torch.testing.assert_close(states[0].loss, states[1].loss)
