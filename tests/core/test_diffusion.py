import pytest
import scipy.stats
import torch
from diffusers import DDPMScheduler
from hypothesis import given
from hypothesis import strategies as st

from antipure_lib.core.diffusion import add_noise, alpha_bars, predict, predict_eps, predict_x0, reverse_step
from antipure_lib.runtime.micro_batch import in_parts
from antipure_lib.runtime.noise import image_generators, randint, randn, stratified
from antipure_lib.runtime.unet import sample_size

SHAPE = (2, 3, 4, 4)


def normal(seed, shape=SHAPE):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_add_noise_is_the_schedulers(schedule):
    scheduler = DDPMScheduler(beta_schedule=schedule)
    x0, eps, t = normal(1), normal(2), torch.tensor([0, 999])
    expected = scheduler.add_noise(x0, eps, t)
    alpha_bar = alpha_bars(scheduler)
    torch.testing.assert_close(add_noise(x0, eps, t, alpha_bar), expected)
    torch.testing.assert_close(add_noise(x0, eps, 999, alpha_bar)[1], expected[1])


@pytest.mark.parametrize("t", [-1, 1000])
def test_timesteps_outside_the_models_are_named(t):
    alpha_bar = alpha_bars(DDPMScheduler())
    for formula in (add_noise, predict_x0):
        with pytest.raises(ValueError, match=f"t must be 0 … 999, got {t}"):
            formula(normal(1), normal(2), t, alpha_bar)


@pytest.mark.parametrize("t", [0, 10, 500, torch.tensor([0, 700])])
def test_predict_x0_undoes_add_noise(t):
    alpha_bar = alpha_bars(DDPMScheduler())
    x0, eps = normal(1), normal(2)
    torch.testing.assert_close(
        predict_x0(add_noise(x0, eps, t, alpha_bar), eps, t, alpha_bar), x0, atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("kind", ["fixed_small", "fixed_small_log", "fixed_large", "learned_range"])
def test_reverse_step_is_the_schedulers_at_every_timestep(kind, clip):
    scheduler = DDPMScheduler(variance_type=kind, clip_sample=clip)
    x_t, eps, v = normal(1), normal(2), normal(3).tanh()
    learned = kind == "learned_range"
    for t in range(1000):
        noise = normal(t)
        output = torch.cat([eps, v], 1) if learned else eps
        # diffusers draws noise in the shape of the model's output, so hand it ours.
        step = _with_noise(noise, scheduler, output, t, x_t)
        ours = reverse_step(x_t, eps, t, scheduler, noise, v if learned else None)
        torch.testing.assert_close(ours, step, atol=1e-5, rtol=1e-5, msg=lambda m, t=t: f"t={t}: {m}")


def _with_noise(noise, scheduler, output, t, x_t):
    import diffusers.schedulers.scheduling_ddpm as module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "randn_tensor", lambda *a, **k: noise)
        return scheduler.step(output, t, x_t).prev_sample


def test_reverse_step_names_what_it_cannot_do():
    x = normal(1)
    with pytest.raises(ValueError, match="learned_range.*needs v"):
        reverse_step(x, x, 5, DDPMScheduler(variance_type="learned_range"), x)
    with pytest.raises(ValueError, match="fixed_large_log.*isn't supported"):
        reverse_step(x, x, 5, DDPMScheduler(variance_type="fixed_large_log"), x)


def test_predict_eps_takes_one_timestep_or_one_each(tiny_ddpm):
    x_t = normal(1, (3, 3, 16, 16))
    with torch.no_grad():
        direct = tiny_ddpm.unet(x_t, torch.tensor([7, 7, 7])).sample
        each = torch.cat([predict_eps(tiny_ddpm, x_t[i : i + 1], t) for i, t in enumerate([3, 50, 900])])
        torch.testing.assert_close(predict_eps(tiny_ddpm, x_t, 7), direct)
        torch.testing.assert_close(
            predict_eps(tiny_ddpm, x_t, torch.tensor([3, 50, 900])), each, atol=1e-5, rtol=1e-4
        )
    assert sample_size(tiny_ddpm) == 16


def test_learned_sigma_head_is_split_off(tiny_ddpm, make_ddpm):
    wide = make_ddpm(out_channels=6, variance_type="learned_range")
    x_t = normal(1, (2, 3, 16, 16))
    with torch.no_grad():
        raw = wide.unet(x_t, 5).sample
        eps, v = predict(wide, x_t, 5)
    assert torch.equal(eps, raw[:, :3]) and torch.equal(v, raw[:, 3:])
    assert predict(tiny_ddpm, x_t, 5)[1] is None


@pytest.mark.parametrize("per_sample", [True, False])
def test_small_batches_change_nothing_but_memory(tiny_ddpm64, per_sample):
    x = normal(1, (5, 3, 16, 16)).double()
    t = torch.tensor([1, 2, 3, 4, 500]) if per_sample else 9
    gradients = []
    for batch in (None, 2):
        leaf = x.clone().requires_grad_()
        out = predict_eps(in_parts(tiny_ddpm64, batch, 5, gradients=True), leaf, t)
        first = torch.autograd.grad(out.sum(), leaf, retain_graph=True)[0]
        second = torch.autograd.grad(out.square().sum(), leaf)[0]  # a kept graph is recomputed again
        gradients.append((out.detach(), first, second))
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-11)
    with torch.no_grad():
        torch.testing.assert_close(
            predict_eps(in_parts(tiny_ddpm64, 2, 5, gradients=False), x, t), gradients[0][0]
        )


def test_only_models_that_predict_noise(tiny_ddpm):
    from diffusers import DDPMPipeline

    wrong = DDPMPipeline(tiny_ddpm.unet, DDPMScheduler(prediction_type="v_prediction"))
    with pytest.raises(ValueError, match="v_prediction"):
        predict_eps(wrong, normal(1, (1, 3, 16, 16)), 3)


def test_an_images_noise_depends_on_seed_and_position_alone():
    two = randn((2, 3, 8, 8), image_generators(5, 2))
    four = randn((4, 3, 8, 8), image_generators(5, 4))
    assert torch.equal(two, four[:2])
    assert not torch.equal(four[0], four[1])
    assert not torch.equal(four[1], randn((1, 3, 8, 8), image_generators(6, 1))[0])  # (5, 1) isn't (6, 0)
    with pytest.raises(ValueError, match="seed"):
        image_generators(-1, 2)


@given(st.integers(1, 40), st.integers(0, 2**32))
def test_stratified_numbers_are_evenly_spaced(n, seed):
    drawn = stratified(n, torch.Generator().manual_seed(seed)).double().sort().values
    assert drawn.min() >= 0 and drawn.max() < 1
    assert torch.allclose(drawn.diff(), torch.full((n - 1,), 1 / n, dtype=torch.float64), atol=1e-6)


def test_each_stratified_number_is_uniform():
    g = torch.Generator().manual_seed(0)
    drawn = torch.stack([stratified(3, g) for _ in range(4000)])
    assert all(scipy.stats.kstest(column, "uniform").pvalue > 1e-3 for column in drawn.T.numpy())


def test_noise_is_standard_normal_and_integers_cover_their_range():
    draw = randn((4, 50_000), image_generators(0, 4))
    assert draw.mean(1).abs().max() < 0.02 and (draw.std(1) - 1).abs().max() < 0.02
    assert draw.corrcoef().fill_diagonal_(0).abs().max() < 0.02
    assert randint(0, 10, (2000,), torch.Generator().manual_seed(0)).unique().tolist() == list(range(10))
