"""Customization against loops written with diffusers' and torch's own functions, on a tiny random model."""

import copy
import math
import sys
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from diffusers.training_utils import compute_snr
from peft import get_peft_model_state_dict
from tiny import tiny_stable_diffusion

from antipure_lib.core.diffusion import alpha_bars
from antipure_lib.customization.dreambooth import dreambooth, dreambooth_steps
from antipure_lib.customization.full_size import FULL_SIZE
from antipure_lib.customization.generate import generate
from antipure_lib.customization.latent_diffusion import latents, working_copy
from antipure_lib.customization.lora import ATTENTION, EVERY_LAYER, add_lora, lora, lora_steps, save_lora
from antipure_lib.customization.training import timestep_weights, train_steps
from antipure_lib.models.checkpoints import load_stable_diffusion
from antipure_lib.runtime.memory import peak_bytes
from antipure_lib.runtime.noise import image_generators

PROMPT, CLASS_PROMPT = "a photo of sks person", "a photo of a person"


@pytest.fixture(scope="module")
def pipe():
    return tiny_stable_diffusion()


def photos(n: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.rand((n, 3, 16, 16), generator=torch.Generator().manual_seed(seed))


def weights(pipe) -> dict[str, torch.Tensor]:
    parts = {"vae": pipe.vae, "unet": pipe.unet, "text_encoder": pipe.text_encoder}
    return {f"{part}.{k}": v.clone() for part, model in parts.items() for k, v in model.state_dict().items()}


def changed(before: dict, after: dict) -> set[str]:
    """The parts in which some weight differs."""
    return {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}


# generate


def test_generate_is_the_pipeline_itself(pipe):
    images = generate(pipe, PROMPT, n=3, seed=5, steps=4, guidance=2.0)
    expected = pipe(
        [PROMPT] * 3,
        generator=image_generators(5, 3),
        num_inference_steps=4,
        guidance_scale=2.0,
        output_type="np",
    ).images
    assert images.shape == (3, 3, 16, 16) and images.dtype == torch.float32
    assert 0 <= images.min() and images.max() <= 1
    assert torch.allclose(images, torch.from_numpy(expected).permute(0, 3, 1, 2), atol=1e-6)


def test_generate_depends_on_seed_and_position_not_on_batch(pipe):
    five = generate(pipe, PROMPT, n=5, seed=1, steps=3)
    assert torch.equal(five, generate(pipe, PROMPT, n=5, seed=1, steps=3))
    assert torch.allclose(five, generate(pipe, PROMPT, n=5, seed=1, steps=3, batch=2), atol=1e-5)
    assert torch.allclose(five[:2], generate(pipe, PROMPT, n=2, seed=1, steps=3), atol=1e-5)
    assert not torch.allclose(five, generate(pipe, PROMPT, n=5, seed=2, steps=3), atol=1e-2)
    assert not torch.allclose(five[0], five[1], atol=1e-2)


@pytest.mark.parametrize("asks", [True, False])
def test_generate_doesnt_depend_on_who_asks_for_gradients(pipe, asks):
    other = copy.deepcopy(pipe)
    for part in (other.vae, other.unet, other.text_encoder):
        part.requires_grad_(asks)
    assert torch.equal(generate(other, PROMPT, n=2, steps=3), generate(pipe, PROMPT, n=2, steps=3))
    assert all(p.requires_grad == asks for p in other.unet.parameters())


@pytest.mark.parametrize("argument", ["n", "steps", "batch"])
def test_generate_names_a_bad_count(pipe, argument):
    with pytest.raises(ValueError, match=f"{argument} must be at least 1"):
        generate(pipe, PROMPT, **{argument: 0})


# DreamBooth


def min_snr(scheduler, t, gamma):
    """diffusers' weights of its training scripts' `--snr_gamma`, from its own `compute_snr`."""
    snr = compute_snr(scheduler, t)
    velocity = scheduler.config.prediction_type == "v_prediction"
    return torch.minimum(snr, torch.full_like(snr, gamma)) / (snr + 1 if velocity else snr)


def reference(pipe, instance, prior, steps, lr, text_lr, prior_weight, seed, decay, gamma, warmup):
    """DreamBooth once more, written with diffusers' scheduler, `encode_prompt` and torch's own loss.

    The draws come in the library's order: photos, their latents' noise, prior images, their noise, ε, t.
    """
    pipe = copy.deepcopy(pipe)
    generator = torch.Generator().manual_seed(seed)
    parameters = [*pipe.unet.parameters(), *pipe.text_encoder.parameters()]
    text = {"params": pipe.text_encoder.parameters(), "lr": text_lr or lr}
    optimizer = torch.optim.AdamW([{"params": pipe.unet.parameters()}, text], lr=lr, weight_decay=0.01)
    schedules = [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)] if decay else []
    if warmup > 1:
        rise = {"start_factor": 1 / warmup, "total_iters": warmup - 1}
        schedules.append(torch.optim.lr_scheduler.LinearLR(optimizer, **rise))
    losses = []
    for _ in range(steps):
        latents = []
        for images in (instance, prior):
            order = torch.randperm(len(images), generator=generator)
            posterior = pipe.vae.encode(2 * images[order] - 1).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=generator)
            latents.append((posterior.mean + posterior.std * noise).detach() * pipe.vae.config.scaling_factor)
        z0 = torch.cat(latents)
        eps = torch.randn(z0.shape, generator=generator)
        n = len(instance)
        first = torch.rand(1, generator=generator).item()  # the rest of t a n-th apart, for both sets alike
        t = torch.tensor([math.floor(1000 * ((first + k / n) % 1)) for k in range(n)] * 2)
        with torch.enable_grad():
            c = [
                pipe.encode_prompt(p, "cpu", n, do_classifier_free_guidance=False)[0]
                for p in (PROMPT, CLASS_PROMPT)
            ]
            prediction = pipe.unet(pipe.scheduler.add_noise(z0, eps, t), t, torch.cat(c)).sample
        if pipe.scheduler.config.prediction_type == "epsilon":
            target = eps
        else:
            target = pipe.scheduler.get_velocity(z0, eps, t)
        errors = F.mse_loss(prediction, target, reduction="none").mean((1, 2, 3))
        if gamma is not None:
            errors = errors * min_snr(pipe.scheduler, t, gamma)
        loss = errors[:n].mean() + prior_weight * errors[n:].mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        norm = torch.stack([p.grad.norm() for p in parameters if p.grad is not None]).norm()
        for p in parameters:
            if p.grad is not None:
                p.grad *= min(1.0, 1.0 / (norm.item() + 1e-6))
        optimizer.step()
        for schedule in schedules:
            schedule.step()
    return losses, pipe


@pytest.mark.parametrize(
    ("prediction_type", "decay", "text_lr", "gamma", "warmup"),
    [
        ("epsilon", True, None, 5.0, 2),
        ("epsilon", True, None, None, 0),
        ("v_prediction", False, 5e-3, 2.0, 3),
    ],
)
def test_dreambooth_equals_a_loop_written_with_diffusers(prediction_type, decay, text_lr, gamma, warmup):
    pipe = tiny_stable_diffusion(prediction_type=prediction_type)
    instance, prior = photos(4), photos(4, seed=1)
    options = {"steps": 3, "lr": 1e-3, "text_lr": text_lr, "prior_weight": 0.7, "seed": 3}
    options |= {"decay": decay, "warmup": warmup / 3}
    losses, expected = reference(pipe, instance, prior, gamma=gamma, **options | {"warmup": warmup})
    states = list(dreambooth_steps(pipe, instance, prior_images=prior, snr_gamma=gamma, **options))
    assert [state.step for state in states] == [1, 2, 3]
    assert torch.allclose(torch.stack([state.loss for state in states]), torch.tensor(losses), rtol=1e-4)
    theirs, ours = weights(expected), weights(states[-1].pipe)
    # Adam's first steps divide by |gradient|: where that is all but zero, rounding decides the direction.
    near = torch.cat([((theirs[name] - ours[name]).abs() < 1e-4).flatten() for name in ours])
    assert near.float().mean() > 0.99


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_min_snr_weighs_the_error_of_the_image(kind):
    """Whatever the model predicts, min-SNR's loss is min(SNR, γ)·‖ẑ0 − z0‖²."""
    scheduler, gamma = tiny_stable_diffusion(prediction_type=kind).scheduler, 5.0
    alpha_bar, g = alpha_bars(scheduler).double(), torch.Generator().manual_seed(0)
    z0, eps, predicted = torch.randn((3, 1000), generator=g, dtype=torch.float64)
    z_t = alpha_bar.sqrt() * z0 + (1 - alpha_bar).sqrt() * eps
    if kind == "epsilon":
        target, z0_hat = eps, (z_t - (1 - alpha_bar).sqrt() * predicted) / alpha_bar.sqrt()
    else:
        target = alpha_bar.sqrt() * eps - (1 - alpha_bar).sqrt() * z0
        z0_hat = alpha_bar.sqrt() * z_t - (1 - alpha_bar).sqrt() * predicted
    found = timestep_weights(scheduler, alpha_bar, gamma) * (predicted - target).square()
    expected = (alpha_bar / (1 - alpha_bar)).clamp(max=gamma) * (z0_hat - z0).square()
    assert torch.allclose(found, expected, rtol=1e-9)
    assert torch.equal(timestep_weights(scheduler, alpha_bar, None), torch.ones_like(alpha_bar))


def test_dreambooth_leaves_the_callers_pipeline_alone(pipe):
    before, random_state = weights(pipe), torch.get_rng_state()
    asked = [p.requires_grad for p in pipe.unet.parameters()]
    trained = dreambooth(pipe, photos(), steps=2, n_prior=2)
    assert changed(before, weights(pipe)) == set()
    assert [p.requires_grad for p in pipe.unet.parameters()] == asked
    assert torch.equal(random_state, torch.get_rng_state())
    assert all(p.grad is None for p in trained.unet.parameters())
    assert trained.vae is not pipe.vae and trained.scheduler is not pipe.scheduler


@pytest.mark.parametrize("train_text_encoder", [True, False])
def test_dreambooth_trains_the_unet_and_if_asked_the_text_encoder(pipe, train_text_encoder):
    trained = dreambooth(
        pipe, photos(), steps=2, lr=1e-3, prior_weight=0, train_text_encoder=train_text_encoder
    )
    expected = {"unet", "text_encoder"} if train_text_encoder else {"unet"}
    assert changed(weights(pipe), weights(trained)) == expected


def test_same_seed_same_bits(pipe):
    options = {"steps": 2, "lr": 1e-3, "n_prior": 2, "batch": 3}
    first = weights(dreambooth(pipe, photos(), seed=1, **options))
    torch.rand(7)  # the global generator must not matter
    assert changed(first, weights(dreambooth(pipe, photos(), seed=1, **options))) == set()
    assert changed(first, weights(dreambooth(pipe, photos(), seed=2, **options))) != set()


def test_prior_is_generated_from_the_class_prompt(pipe):
    generated = generate(pipe, CLASS_PROMPT, n=2, seed=4)
    options = {"steps": 2, "seed": 4, "batch": 2}
    own = list(dreambooth_steps(pipe, photos(), n_prior=2, **options))
    given = list(dreambooth_steps(pipe, photos(), prior_images=generated, **options))
    assert [s.loss.item() for s in own] == [s.loss.item() for s in given]


def test_loss_is_the_weighted_sum_of_its_parts(pipe):
    (state,) = dreambooth_steps(pipe, photos(), steps=1, prior_weight=0.3, n_prior=2)
    assert state.loss.item() == pytest.approx(
        state.losses["instance"].item() + 0.3 * state.losses["prior"].item()
    )
    (state,) = dreambooth_steps(pipe, photos(), steps=1, prior_weight=0)
    assert set(state.losses) == {"instance"} and state.loss == state.losses["instance"]


def error(pipe, images, prompt=PROMPT) -> float:
    """The denoising loss of images under a prompt, on fixed noise at many timesteps."""
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        z0 = (
            pipe.vae.encode(2 * images - 1).latent_dist.mean.repeat(16, 1, 1, 1)
            * pipe.vae.config.scaling_factor
        )
        eps = torch.randn(z0.shape, generator=generator)
        t = torch.randint(0, 1000, (len(z0),), generator=generator)
        c = pipe.encode_prompt(prompt, "cpu", len(z0), do_classifier_free_guidance=False)[0]
        return F.mse_loss(pipe.unet(pipe.scheduler.add_noise(z0, eps, t), t, c).sample, eps).item()


def test_dreambooth_and_lora_learn(pipe):
    images = photos(2)
    before = error(pipe, images)
    assert error(dreambooth(pipe, images, steps=20, lr=3e-3, prior_weight=0), images) < 0.8 * before
    assert error(lora(pipe, images, steps=20, lr=1e-1), images) < 0.98 * before


def test_prior_preservation_keeps_the_class(pipe):
    subject, others = photos(2), photos(4, seed=7)
    options = {"steps": 20, "lr": 1e-2, "prior_images": others}
    without = error(dreambooth(pipe, subject, prior_weight=0, **options), others, CLASS_PROMPT)
    kept = error(dreambooth(pipe, subject, prior_weight=1, **options), others, CLASS_PROMPT)
    assert kept < 0.95 * without


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_the_precision_of_the_work_not_of_the_weights(pipe, dtype):
    options = {"steps": 2, "lr": 1e-3, "prior_images": photos(4, seed=1)}
    full = list(dreambooth_steps(pipe, photos(), **options))
    half = list(dreambooth_steps(pipe, photos(), dtype=dtype, **options))
    assert half[0].loss.item() == pytest.approx(full[0].loss.item(), rel=0.02)
    assert half[0].loss != full[0].loss
    assert {p.dtype for p in half[-1].pipe.unet.parameters()} == {torch.float32}
    assert "unet" in changed(weights(pipe), weights(half[-1].pipe))
    images = generate(pipe, PROMPT, n=2, steps=3, dtype=dtype)
    assert images.dtype == torch.float32
    assert torch.allclose(images, generate(pipe, PROMPT, n=2, steps=3), atol=0.05)


def test_a_half_precision_pipeline_is_trained_in_float32(pipe):
    half = copy.deepcopy(pipe)
    for model in (half.vae, half.unet, half.text_encoder):
        model.bfloat16()
    trained = dreambooth(half, photos(), steps=1, prior_weight=0)
    assert {p.dtype for p in trained.unet.parameters()} == {torch.float32}
    assert {p.dtype for p in half.unet.parameters()} == {torch.bfloat16}


# LoRA


@pytest.mark.parametrize("layers", [ATTENTION, EVERY_LAYER])
def test_lora_changes_the_asked_layers_by_the_asked_rank(pipe, layers):
    before = weights(pipe)
    trained = lora(pipe, photos(), steps=3, lr=1e-2, rank=2, layers=layers)
    assert changed(before, weights(pipe)) == set()
    names = [name for name in trained.unet.state_dict() if "lora_" in name]
    modules = {name.split(".lora_")[0] for name in names}
    asked = {name for name, _ in pipe.unet.named_modules() if name.endswith(tuple("." + e for e in layers))}
    kinds = {type(pipe.unet.get_submodule(name)) for name in asked}
    assert kinds == ({torch.nn.Linear} if layers == ATTENTION else {torch.nn.Linear, torch.nn.Conv2d})
    assert modules == asked and len(names) == 2 * len(asked)

    trained.unet.fuse_lora()
    trained.unet.unload_lora()
    after = weights(trained)
    assert set(after) == set(before)
    for name in before:
        delta = after[name] - before[name]
        if name.removeprefix("unet.").removesuffix(".weight") in asked:
            assert torch.linalg.matrix_rank(delta.flatten(1), atol=1e-6) == 2, name
        else:
            assert torch.equal(delta, torch.zeros_like(delta)), name


def test_lora_starts_as_the_model_itself(pipe):
    """B = 0: the first loss, taken before the first update, is that of the unchanged model."""
    (with_adapter,) = lora_steps(pipe, photos(), steps=1, seed=2)
    options = {"prior_weight": 0, "train_text_encoder": False, "seed": 2}
    (without,) = dreambooth_steps(pipe, photos(), steps=1, **options)
    assert with_adapter.loss.item() == pytest.approx(without.loss.item(), rel=1e-6)


def test_lora_same_seed_same_bits(pipe):
    random_state = torch.get_rng_state()
    first = lora(pipe, photos(), steps=2, seed=1).unet.state_dict()
    assert torch.equal(random_state, torch.get_rng_state())
    again, other = (lora(pipe, photos(), steps=2, seed=seed).unet.state_dict() for seed in (1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    adapters = [name for name in first if "lora_" in name]
    assert not any(torch.equal(first[name], other[name]) for name in adapters)


@pytest.mark.parametrize("layers", [ATTENTION, EVERY_LAYER])
def test_saved_lora_is_read_back_by_diffusers(pipe, tmp_path, layers):
    trained = lora(pipe, photos(), steps=3, lr=1e-1, layers=layers)
    saved = get_peft_model_state_dict(trained.unet)
    path = save_lora(trained, tmp_path / "new" / "folder")
    assert [path] == list(path.parent.iterdir())

    other = tiny_stable_diffusion()
    plain = generate(other, PROMPT, n=2, steps=3)
    other.load_lora_weights(path.parent)
    (name,) = other.unet.peft_config
    read = get_peft_model_state_dict(other.unet, adapter_name=name)
    assert set(read) == set(saved) and all(torch.equal(read[key], saved[key]) for key in saved)
    learned = generate(trained, PROMPT, n=2, steps=3)
    assert torch.equal(generate(other, PROMPT, n=2, steps=3), learned)
    assert not torch.allclose(plain, learned, atol=1e-3)


def test_save_lora_names_a_pipeline_without_one_and_leaves_no_half_file(pipe, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="no LoRA adapter"):
        save_lora(pipe, tmp_path)
    trained = lora(pipe, photos(), steps=1)

    def full(folder, weight_name, **_):
        (folder / weight_name).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(trained, "save_lora_weights", full)
    with pytest.raises(OSError, match="No space"):
        save_lora(trained, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_frozen_weights_kept_in_half_precision_change_no_bit(pipe, tmp_path, dtype):
    options = {"steps": 3, "lr": 1e-2, "batch": 4, "snr_gamma": 5.0}
    trained = working_copy(pipe)  # the same training with float32 weights, which autocast rounds at every use
    trained.unet.requires_grad_(False)
    trained.text_encoder.requires_grad_(False)
    add_lora(trained.unet, rank=8, layers=EVERY_LAYER)
    groups, generator = (
        {"instance": (latents(trained, photos(), 4), PROMPT)},
        torch.Generator().manual_seed(0),
    )
    expected = list(train_steps(trained, groups, {}, generator=generator, dtype=dtype, decay=True, **options))
    states = list(lora_steps(pipe, photos(), rank=8, dtype=dtype, **options))
    assert [s.loss.item() for s in states] == [s.loss.item() for s in expected]
    learned = states[-1].pipe
    ours, theirs = (get_peft_model_state_dict(p.unet) for p in (learned, trained))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)

    kept = {}  # of the frozen weights, by the kind of their layer
    for layer in learned.unet.modules():
        for parameter in layer.parameters(recurse=False):
            if parameter.requires_grad:
                assert parameter.dtype == torch.float32
            else:
                kept.setdefault(type(layer).__name__, set()).add(parameter.dtype)
    norms = {"GroupNorm": {torch.float32}, "LayerNorm": {torch.float32}}
    assert kept == {"Conv2d": {dtype}, "Linear": {dtype}} | norms

    images = generate(learned, PROMPT, n=2, steps=3, dtype=dtype)
    assert torch.equal(images, generate(trained, PROMPT, n=2, steps=3, dtype=dtype))
    assert torch.equal(images, generate(learned, PROMPT, n=2, steps=3))  # the mixture needs no reminder
    other = tiny_stable_diffusion()
    other.load_lora_weights(save_lora(learned, tmp_path).parent)
    assert torch.equal(images, generate(other, PROMPT, n=2, steps=3, dtype=dtype))


# full size


@pytest.mark.parametrize(("name", "train"), [("dreambooth", dreambooth_steps), ("lora", lora_steps)])
def test_full_size_values_are_arguments(pipe, name, train):
    few = {"steps": 1} | ({"n_prior": 1} if name == "dreambooth" else {})
    (state,) = train(pipe, photos(), **FULL_SIZE[name] | few)
    assert state.loss.isfinite()


@pytest.mark.parametrize("train", [dreambooth_steps, lora_steps])
def test_gradient_checkpointing_saves_memory_and_changes_no_bit(pipe, train):
    prior = {"prior_images": photos(4, seed=1)} if train is dreambooth_steps else {}
    weights_of, peaks = [], []
    for checkpointing in (False, True):
        states = train(pipe, photos(), steps=2, batch=16, gradient_checkpointing=checkpointing, **prior)
        next(states)
        peaks.append(peak_bytes(lambda states=states: weights_of.append(weights(next(states).pipe))))
    assert changed(*weights_of) == set()
    assert peaks[1] < 0.9 * peaks[0]


def test_eight_bit_adam_is_bitsandbytes(pipe, monkeypatch):
    made = []

    class AdamW8bit(torch.optim.AdamW):
        def __init__(self, *arguments):
            made.append(arguments)
            super().__init__(*arguments, fused=True)

    plain = weights(dreambooth(pipe, photos(), **FEW))
    monkeypatch.setitem(sys.modules, "bitsandbytes", ModuleType("bitsandbytes"))
    optim = ModuleType("bitsandbytes.optim")
    optim.AdamW8bit = AdamW8bit
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", optim)
    assert changed(plain, weights(dreambooth(pipe, photos(), eight_bit_adam=True, **FEW))) == set()
    assert len(made) == 1


def test_eight_bit_adam_without_bitsandbytes_is_refused_at_once(pipe, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ImportError, match="pip install bitsandbytes"):
        dreambooth_steps(pipe, photos(), eight_bit_adam=True)


def test_saved_dreambooth_is_read_back_by_diffusers(pipe, tmp_path):
    trained = dreambooth(pipe, photos(), **FEW)
    trained.save_pretrained(tmp_path)
    read = load_stable_diffusion(str(tmp_path), device="cpu")
    assert torch.equal(generate(read, PROMPT, n=2, steps=3), generate(trained, PROMPT, n=2, steps=3))


def test_generate_halves_its_batch_when_memory_runs_out(pipe, monkeypatch):
    tight, sizes = copy.deepcopy(pipe), []
    decode = tight.vae.decode

    def limited(z, **options):
        sizes.append(len(z))
        if len(z) > 2:  # after the whole sampling, which has drawn its noise
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return decode(z, **options)

    monkeypatch.setattr(tight.vae, "decode", limited)
    images = generate(tight, PROMPT, n=5, steps=3, batch=5)
    assert sizes == [5, 2, 2, 1]
    assert torch.equal(images, generate(pipe, PROMPT, n=5, steps=3, batch=2))


# bad input

FEW = {"steps": 1, "prior_weight": 0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be at least 1"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"n_prior": 0}, "n_prior must be at least 1"),
        ({"lr": 0}, "lr must be positive"),
        ({"lr": float("nan")}, "lr must be positive"),
        ({"text_lr": 0}, "text_lr must be positive"),
        ({"snr_gamma": 0}, "snr_gamma must be positive"),
        ({"warmup": 30}, "warmup must be a share"),
        ({"prior_weight": -1}, "prior_weight must not be negative"),
        ({"prior_images": photos()[..., :8]}, "prior_images: 16×8 pixels.*size=16"),
        ({"prior_images": photos() * 255}, "prior_images must lie in"),
    ],
)
def test_dreambooth_names_a_bad_argument_at_once(pipe, options, message):
    with pytest.raises(ValueError, match=message):
        dreambooth_steps(pipe, photos(), **options)


@pytest.mark.parametrize("train", [dreambooth_steps, lora_steps])
@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(4, 3, 24, 24), "images: 24×24 pixels.*size=16"),
        (torch.full((4, 3, 16, 16), torch.nan), "images holds NaN"),
        (photos() * 2 - 1, "images must lie in"),
    ],
)
def test_bad_photos_are_refused_at_once(pipe, train, images, message):
    with pytest.raises(ValueError, match=message):
        train(pipe, images)


def test_lora_names_a_bad_argument_at_once(pipe):
    for options in ({"rank": 0}, {"steps": 0}, {"lr": -1}):
        with pytest.raises(ValueError, match=next(iter(options))):
            lora_steps(pipe, photos(), **options)


def test_an_unknown_prediction_type_is_named():
    pipe = tiny_stable_diffusion(prediction_type="sample")
    with pytest.raises(ValueError, match="predicts 'sample'"):
        dreambooth(pipe, photos(), **FEW)


def test_one_photo_is_enough(pipe):
    (state,) = dreambooth_steps(pipe, photos(1)[0], batch=4, **FEW)
    assert state.loss.isfinite()
