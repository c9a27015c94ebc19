"""Anti-DreamBooth and SimAC against loops written with torch and diffusers alone, on a tiny random model."""

import copy

import latent_references as latent
import pytest
import torch
import torch.nn.functional as F
from latent_references import PROMPT, assert_same_step, embedding, first_step, generator
from tiny import photos

from antipure_lib.customization.dreambooth import dreambooth
from antipure_lib.customization.latent_diffusion import text_embeddings
from antipure_lib.protections.advdm import advdm_steps
from antipure_lib.protections.anti_dreambooth import aspl_steps, fsmg_steps
from antipure_lib.protections.simac import greedy_timesteps, simac_steps

FAST = {"candidates": 2, "radius": 200, "keep": 600}  # a selection of one or two steps


def call(attack, pipe, x, set_a=None, **options):
    """The attack with little training, and a quick selection of timesteps."""
    quick = {"prior_weight": 0, "surrogate_steps": 1, "lr": 1e-3}
    if attack is simac_steps:
        quick |= FAST
    return attack(pipe, x, photos() if set_a is None else set_a, **(quick | options))


ATTACKS = [fsmg_steps, aspl_steps, simac_steps]


# FSMG


def test_fsmg_is_advdm_on_the_dreambooth_of_set_a(pipe, pictures):
    x, set_a, prior = pictures(2), photos(), photos(seed=8)
    learning = {"steps": 2, "lr": 1e-2, "prior_images": prior, "seed": 5}
    trained = dreambooth(pipe, set_a, prompt=PROMPT, **learning)
    expected = list(advdm_steps(trained, x, steps=3, seed=5))
    options = {"surrogate_steps": 2, "lr": 1e-2, "prior_images": prior}
    states = list(fsmg_steps(pipe, x, set_a, steps=3, seed=5, **options))
    for ours, theirs in zip(states, expected, strict=True):
        assert torch.equal(ours.x_adv, theirs.x_adv)
    untrained = list(advdm_steps(pipe, x, steps=3, seed=5))
    assert not torch.equal(states[-1].x_adv, untrained[-1].x_adv)


# ASPL


def aspl_written_out(pipe, x, set_a, prior, seed, phases):
    """Rounds of three steps, seven in all: θ' from θ by set A, PGD, θ by the perturbed photos."""
    learning, attack = generator(seed), generator(seed)
    model, x_adv, losses = copy.deepcopy(pipe), x, []
    for steps in (3, 3, 1):
        surrogate = copy.deepcopy(model)
        if "clean" in phases:
            latent.train(surrogate, set_a, prior, learning, steps=2, lr=1e-2)
        for _ in range(steps):
            leaf = x_adv.clone().requires_grad_()
            loss = latent.reference_advdm(surrogate, leaf, attack)
            losses.append(loss.detach())
            (gradient,) = torch.autograd.grad(loss.sum(), leaf)
            x_adv = (x_adv + gradient.sign() / 255).clamp(0, 1)
        if "perturbed" in phases:
            latent.train(model, x_adv, prior, learning, steps=2, lr=1e-2)
    return torch.stack(losses)


def test_aspl_against_a_loop_written_out(pipe, pictures):
    x, set_a, prior = pictures(4), photos(), photos(seed=8)
    options = {"surrogate_steps": 2, "round_steps": 3, "lr": 1e-2, "prior_images": prior}
    states = list(aspl_steps(pipe, x, set_a, steps=7, seed=6, **options))
    ours = torch.stack([state.losses["loss"] for state in states])

    def distance(*phases):
        return (ours - aspl_written_out(pipe, x, set_a, prior, 6, phases)).abs().max()

    # Adam divides by |gradient|: where that is all but zero, rounding decides, and what follows drifts apart.
    assert distance("clean", "perturbed") < 0.004
    assert min(distance("clean"), distance("perturbed")) > 0.04


def test_aspls_surrogate_learns_between_the_rounds_only(pipe, pictures):
    """A hook on the caller's UNet is copied with it, so it sees the surrogates at work."""
    seen = []

    def watch(unet, args, out):
        if args[0].requires_grad:  # PGD's calls: there the gradient goes to the images
            seen.append((unet, unet.conv_out.weight.clone(), any(p.requires_grad for p in unet.parameters())))

    handle = pipe.unet.register_forward_hook(watch)
    try:
        list(call(aspl_steps, pipe, pictures(), steps=5, round_steps=2))
    finally:
        handle.remove()
    assert len(seen) == 5 and not any(trained for _, _, trained in seen)
    assert all(unet is seen[0][0] is not pipe.unet for unet, _, _ in seen)
    same = [torch.equal(a, b) for (_, a, _), (_, b, _) in zip(seen, seen[1:], strict=False)]
    assert same == [True, False, True, False]
    assert not torch.equal(seen[0][1], pipe.unet.conv_out.weight)


def test_aspl_with_rounds_longer_than_the_run_is_fsmg(pipe, pictures):
    options = {"steps": 4, "surrogate_steps": 2, "seed": 2}
    *_, aspl = call(aspl_steps, pipe, pictures(2), round_steps=4, **options)
    *_, fsmg = call(fsmg_steps, pipe, pictures(2), decay=False, warmup=0, **options)
    assert torch.equal(aspl.x_adv, fsmg.x_adv)


# SimAC


def test_greedy_selection_against_brute_force(pipe, pictures):
    """Candidate by candidate, with sets; the draws come in the library's order."""
    x, eta, step_size, seed, candidates, radius, keep = pictures(2), 3 / 255, 2 / 255, 7, 4, 90, 300
    embed = text_embeddings(pipe, [PROMPT])
    options = {"candidates": candidates, "radius": radius, "keep": keep}
    ours = greedy_timesteps(pipe, x, embed, eta, step_size, seed, **options)

    g, left, x_adv = generator(seed), [set(range(1000)) for _ in x], x.clone()
    while any(len(times) > keep for times in left):
        mask = torch.tensor([[float(t in times) for t in range(1000)] for times in left], dtype=torch.float64)
        drawn = torch.multinomial(mask, candidates, replacement=True, generator=g)
        shape = (len(x) * candidates, 4, 8, 8)
        noise, eps = (torch.randn(shape, generator=g).view(len(x), candidates, 4, 8, 8) for _ in "ab")
        best = []
        for i, times in enumerate(left):
            scores = {}
            for k, t in enumerate(drawn[i].tolist()):
                gradient = image_gradient(pipe, x_adv[i : i + 1], noise[i, k], eps[i, k], t)
                scores[k] = gradient.abs().sum().item()
            t_min, t_max = (drawn[i][choose(scores, key=scores.get)].item() for choose in (min, max))
            if len(times) > keep:
                times -= set(range(t_min - radius, t_min + radius + 1))
            best.append(t_max)
        noise, eps = (torch.randn((len(x), 4, 8, 8), generator=g) for _ in "ab")
        gradients = [image_gradient(pipe, x_adv[i : i + 1], noise[i], eps[i], best[i]) for i in range(len(x))]
        x_adv = x_adv + step_size * torch.cat(gradients).sign()
        x_adv = torch.minimum(torch.maximum(x_adv, x - eta), x + eta).clamp(0, 1)
    assert [set(row.nonzero().flatten().tolist()) for row in ours] == left
    assert (ours.sum(1) <= keep).all() and (ours.sum(1) >= keep - 2 * radius).all()
    assert not torch.equal(*ours)


def image_gradient(pipe, x, noise, eps, t):
    leaf = x.clone().requires_grad_()
    posterior = pipe.vae.encode(2 * leaf - 1).latent_dist
    z0 = pipe.vae.config.scaling_factor * (posterior.mean + posterior.std * noise)
    error = latent.reference_error(pipe, z0, eps[None], torch.tensor([t]))
    return torch.autograd.grad(error.sum(), leaf)[0]


def test_simacs_first_step(pipe, pictures):
    """Against the formula: the same noise in x + δ and x, timesteps from the pretrained model's selection."""
    x, set_a = pictures(2), photos()
    options = {"seed": 5, "interference": 5000.0, "random_start": True}
    state = next(call(simac_steps, pipe, x, set_a, eta=0.05, **options))
    selected = greedy_timesteps(pipe, x, text_embeddings(pipe, [PROMPT]), 0.05, 1 / 255, 5, **FAST)
    surrogate = dreambooth(pipe, set_a, steps=1, prior_weight=0, lr=1e-3, seed=5)

    g = generator(5)
    x_adv = (x + 0.05 * (2 * torch.rand(x.shape, generator=g) - 1)).clamp(0, 1)
    noise, eps = (torch.randn((2, 4, 8, 8), generator=g) for _ in "ab")
    t = torch.multinomial(selected.double(), 1, generator=g).flatten()
    assert all(selected[i, t[i]] for i in range(2))

    def error_and_features(x):
        posterior = surrogate.vae.encode(2 * x - 1).latent_dist
        z0 = surrogate.vae.config.scaling_factor * (posterior.mean + posterior.std * noise)
        found = []
        layers = surrogate.unet.up_blocks[-1].resnets
        handles = [
            layer.conv2.register_forward_hook(lambda *call: found.append(call[-1])) for layer in layers
        ]
        c = embedding(surrogate).expand(2, -1, -1)
        prediction = surrogate.unet(surrogate.scheduler.add_noise(z0, eps, t), t, c).sample
        for handle in handles:
            handle.remove()
        return (prediction - eps).square().mean((1, 2, 3)), torch.stack(found)

    def terms(x_adv):
        error, features = error_and_features(x_adv)
        _, clean = error_and_features(x)
        return error, 5000.0 * F.mse_loss(features, clean, reduction="none").mean((0, 2, 3, 4))

    error, features = (term.detach() for term in terms(x_adv))
    with_features, certain = first_step(lambda x_adv: sum(terms(x_adv)), x_adv)
    without, _ = first_step(lambda x_adv: terms(x_adv)[0], x_adv)
    assert (with_features != without).float().mean() > 0.1  # the term's gradient matters
    expected = torch.minimum(torch.maximum(with_features, x - 0.05), x + 0.05)
    assert_same_step(state, {"loss": error, "features": features}, (expected, certain))
    assert not any(layer.conv2._forward_hooks for layer in pipe.unet.up_blocks[-1].resnets)


# all of them


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_half_precision_pipeline_is_attacked_in_float32(pipe, pictures, attack):
    half = copy.deepcopy(pipe)
    for model in (half.vae, half.unet, half.text_encoder):
        model.bfloat16()
    (state,) = call(attack, half, pictures(), steps=1)
    assert state.x_adv.dtype == torch.float32 and state.losses["loss"].dtype == torch.float32


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"set_a": torch.rand(3, 24, 16)}, "set_a: 24×16 pixels.*size=16"),
        ({"set_a": photos() * 255}, "set_a must lie in"),
        ({"surrogate_steps": 0}, "steps must be at least 1"),
        ({"prior_images": photos()[..., :8]}, "prior_images: 16×8"),
    ],
    ids=lambda o: str(o)[:16],
)
def test_bad_arguments_are_named_before_the_training(pipe, pictures, attack, options, message):
    with pytest.raises(ValueError, match=message):
        call(attack, pipe, **({"x": pictures(1)} | options))


def test_bad_arguments_of_single_attacks(pipe, pictures):
    for attack in (fsmg_steps, aspl_steps):
        with pytest.raises(ValueError, match="noise_samples must be at least 1"):
            call(attack, pipe, pictures(), noise_samples=0)
    with pytest.raises(ValueError, match="round_steps must be at least 1"):
        call(aspl_steps, pipe, pictures(), round_steps=0)
    with pytest.raises(ValueError, match="candidates must be at least 1"):
        call(simac_steps, pipe, pictures(), candidates=0)
    for radius in (50, -1):
        with pytest.raises(ValueError, match="radius must be"):
            call(simac_steps, pipe, pictures(), radius=radius, keep=100)
