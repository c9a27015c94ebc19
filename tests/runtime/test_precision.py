"""What low precision and the order of weights in memory change: nothing that matters."""

import pytest
import torch

import antipure_lib as ap
from antipure_lib.benchmark.intervals import paired_test


@pytest.mark.parametrize("balance", ["sum", "equal"])
def test_images_protected_in_bfloat16_are_as_good_as_in_float32(balance):
    """Judged in float32, on the same noise: every term within 2 %, and what survives purification too."""
    x = ap.load_faces("p01")[:2, :, 16:48, 16:48]  # one tile each
    precise, low = (ap.load_ddpm(device="cpu", dtype=dtype) for dtype in (torch.float32, torch.bfloat16))
    made = [ap.antipure(ddpm, x, steps=4, step_size=4 / 255, balance=balance) for ddpm in (precise, low)]
    assert not torch.equal(*made)
    loss = ap.antipure_loss(precise, x.shape[-2:], noise_samples=16)
    with torch.no_grad():
        clean, *terms = (loss(y, torch.Generator().manual_seed(7)) for y in (x, *made))
    for name in clean:
        torch.testing.assert_close(terms[1][name], terms[0][name], rtol=0.02, atol=0)
    assert (terms[0]["ddpm"] > 2 * clean["ddpm"]).all()  # there was something to lose
    left = [ap.survival(lambda y, seed: ap.diffpure(precise, y, t=10, seed=seed), x, y) for y in made]
    torch.testing.assert_close(*left, rtol=0.02, atol=0)


STEP = {"step_size": 4 / 255}
KINDS = {"antipure": STEP, "antipure-paper": STEP, "random": {}}


def test_bfloat16_and_float32_give_the_same_verdict():
    """Which of two protections leaves more after purification, person by person, and so on the whole."""
    x = torch.stack([ap.load_faces(name)[0, :, 16:48, 16:48] for name in ("p01", "p02", "p03", "p04")])
    judge = ap.load_ddpm(device="cpu", dtype=torch.float32)

    def wash(y, seed):
        return ap.gridpure(judge, y, iterations=2, seed=seed)

    left = {}
    for dtype in (torch.float32, torch.bfloat16):
        ddpm = ap.load_ddpm(device="cpu", dtype=dtype)
        made = {name: ap.protect(name, x, ddpm=ddpm, steps=8, **how) for name, how in KINDS.items()}
        left[dtype] = {name: ap.survival(wash, x, y) for name, y in made.items()}
    for name in ("antipure", "antipure-paper"):
        gains = [survivals[name] - survivals["random"] for survivals in left.values()]
        assert torch.equal(*(gain.sign() for gain in gains)), name
        p = [paired_test(dict(enumerate(gain.tolist())), dict.fromkeys(range(4), 0.0)) for gain in gains]
        assert p[0] == p[1]


def test_a_channels_last_model_can_be_customized(pictures):
    from tiny import tiny_stable_diffusion

    states = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        pipe = tiny_stable_diffusion()
        pipe.unet.to(memory_format=memory_format)
        steps = ap.dreambooth_steps(pipe, pictures(2), steps=2, prior_images=pictures(2, seed=1))
        states.append(list(steps)[-1])
    torch.testing.assert_close(states[0].loss, states[1].loss)
