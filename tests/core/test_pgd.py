import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from antipure_lib.core.antipure import antipure_steps
from antipure_lib.core.images import quantise_within
from antipure_lib.core.pgd import fast, pgd
from antipure_lib.photos.pictures import load_image, save_image
from antipure_lib.runtime.micro_batch import MicroBatch


def pattern(shape=(2, 3, 6, 6), seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def linear(c):
    return lambda x, generator: (c * x).sum((1, 2, 3))


def last(states):
    return list(states)[-1]


@settings(deadline=None, max_examples=30)
@given(eta=st.floats(0.001, 1), step_size=st.floats(0.001, 0.5), steps=st.integers(1, 6), start=st.booleans())
def test_a_linear_loss_has_a_closed_form(eta, step_size, steps, start):
    x, c = pattern().sigmoid(), pattern(seed=1)
    state = last(pgd(linear(c), x, eta, steps, step_size))
    expected = (x + min(eta, steps * step_size) * c.sign()).clamp(0, 1)
    torch.testing.assert_close(state.x_adv, expected, rtol=0, atol=2e-6)
    assert state.step == steps


@settings(deadline=None, max_examples=30)
@given(sizes=st.lists(st.floats(0.001, 0.2), min_size=1, max_size=6))
def test_steps_of_their_own_sizes_add_up(sizes):
    x, c = torch.full((2, 3, 6, 6), 0.5), pattern(seed=1)
    states = list(pgd(linear(c), x, 1.0, len(sizes), sizes))
    for kind in (np.asarray, torch.tensor):
        assert torch.equal(states[-1].x_adv, last(pgd(linear(c), x, 1.0, len(sizes), kind(sizes))).x_adv)
    for n, state in enumerate(states, 1):
        torch.testing.assert_close(state.x_adv, (x + sum(sizes[:n]) * c.sign()).clamp(0, 1))


def test_four_fast_steps_can_spend_the_whole_budget():
    x, c = torch.full((1, 3, 6, 6), 0.5), pattern((1, 3, 6, 6))
    state = last(pgd(linear(c), x, **fast(8 / 255, steps=4)))
    torch.testing.assert_close(state.x_adv, x + 8 / 255 * c.sign())
    assert len(list(pgd(linear(c), x, **fast(0.1)))) == 10


@settings(deadline=None, max_examples=30)
@given(
    levels=st.integers(1, 255),
    eight_bit=st.booleans(),
    seed=st.integers(0, 99),
    random_start=st.booleans(),
    odd=st.floats(0, 1),
)
def test_budget_and_range_hold_after_saving(tmp_path_factory, levels, eight_bit, seed, random_start, odd):
    x = pattern((1, 3, 9, 7), seed).mul(2).sigmoid()
    x = (x * 255).round() / 255 if eight_bit else x
    eta = levels / 255 if eight_bit else min(1.0, (levels + odd) / 255)
    x_adv = last(
        pgd(
            lambda x, g: torch.randn(x.shape, generator=g).mul(x).sum((1, 2, 3)),
            x,
            eta,
            steps=3,
            step_size=0.7 * eta,
            seed=seed,
            random_start=random_start,
        )
    ).x_adv
    final = quantise_within(x_adv, x, eta)
    path = save_image(final[0], tmp_path_factory.mktemp("budget") / "x.png")
    saved = load_image(path)
    assert torch.equal(saved, final[0])  # what is returned is what is saved
    assert (saved - x[0]).abs().max() <= eta + 1e-6
    assert saved.min() >= 0 and saved.max() <= 1


def test_momentum_by_hand():
    # Gradients +4, −1, −1 at one pixel, the other constant: with mean |g| = 1 normalisation and momentum 0.9
    sequence = [torch.tensor([4.0, 1]), torch.tensor([-1.0, 1]), torch.tensor([-1.0, 1])]
    x = torch.full((1, 3, 1, 2), 0.5)
    for momentum in (0.0, 0.9):
        gradients = iter(sequence)

        def loss(x, generator, gradients=gradients):
            return (next(gradients) * x).mean((1, 2, 3))

        velocity, expected = torch.zeros(2), torch.full((2,), 0.5)
        for state, g in zip(pgd(loss, x, 0.4, 3, 0.1, momentum=momentum), sequence, strict=True):
            velocity = momentum * velocity + g / g.abs().mean()
            expected = expected + 0.1 * velocity.sign()
            torch.testing.assert_close(state.x_adv, expected.expand(1, 3, 1, 2))
    # 1.6, then 0.9·1.6−1 = 0.44, then 0.9·0.44−1 < 0: momentum outweighs the second gradient, not the third
    assert state.x_adv[0, 0, 0, 0].item() == pytest.approx(0.6)


def test_equal_balance_gives_small_gradients_their_say_image_by_image():
    a, b = pattern(seed=1), pattern(seed=2)
    size = torch.tensor([1000.0, 1e-6]).view(
        2, 1, 1, 1
    )  # the first term is huge in one image, tiny in the other

    def loss(x, generator):
        return {"a": (size * a * x).mean((1, 2, 3)), "b": (b * x).mean((1, 2, 3))}

    x = torch.full_like(a, 0.5)
    unit = [g / g.abs().mean((1, 2, 3), keepdim=True) for g in (a, b)]
    state = last(pgd(loss, x, 0.1, 1, 0.1, balance="equal", weights={"b": 0.5}))
    torch.testing.assert_close(state.x_adv, x + 0.1 * (unit[0] + 0.5 * unit[1]).sign())
    pixels = a[0].numel()
    for name, g in (("a", size * a), ("b", b)):
        torch.testing.assert_close(state.grad_sizes[name], g.abs().mean((1, 2, 3)) / pixels)

    state = last(pgd(loss, x, 0.1, 1, 0.1, balance="sum", weights={"b": 0.5}))
    total = size * a + 0.5 * b
    torch.testing.assert_close(state.x_adv, x + 0.1 * total.sign())
    torch.testing.assert_close(state.grad_sizes["sum"], total.abs().mean((1, 2, 3)) / pixels)
    assert list(state.losses) == ["a", "b"]


def test_negative_weights_descend():
    c = pattern()
    x = torch.full_like(c, 0.5)
    for balance in ("sum", "equal"):
        state = last(pgd(linear(c), x, 0.1, 1, 0.1, balance=balance, weights={"loss": -1}))
        torch.testing.assert_close(state.x_adv, x - 0.1 * c.sign())


def test_losses_are_of_the_image_before_the_step():
    c = pattern()
    x = torch.full_like(c, 0.5)
    states = list(pgd(linear(c), x, 0.1, 3, 0.02))
    torch.testing.assert_close(states[0].losses["loss"], linear(c)(x, None))
    torch.testing.assert_close(states[2].losses["loss"], linear(c)(states[1].x_adv, None))
    assert not any(v.requires_grad for s in states for v in (s.x_adv, *s.losses.values()))


def test_a_flat_loss_moves_nothing():
    x = torch.full((1, 3, 4, 4), 0.5)
    state = last(pgd(lambda x, g: 0 * x.sum((1, 2, 3)), x, 0.1, 3, momentum=0.9))
    assert torch.equal(state.x_adv, x)


def test_start_and_random_start():
    c = pattern()
    x = torch.full_like(c, 0.5)
    first = next(iter(pgd(linear(c), x, 0.1, 1, 0.01, start=x + 0.3)))
    torch.testing.assert_close(first.x_adv, x + 0.1 - 0.01 * (c < 0))
    a, b = (next(iter(pgd(linear(c), x, 0.1, 1, 1e-6, seed=s, random_start=True))).x_adv for s in (0, 1))
    assert not torch.equal(a, b)
    assert (a - x).abs().max() <= 0.1 + 1e-6 and (a - x).abs().mean() > 0.03


def test_same_seed_same_bits_and_global_state_untouched():
    def loss(x, generator):
        return (torch.randn(x.shape, generator=generator) * x).sum((1, 2, 3))

    x = pattern().sigmoid()
    before = torch.random.get_rng_state()
    a, b, c = (last(pgd(loss, x, 0.1, 4, 0.02, seed=s)).x_adv for s in (3, 3, 4))
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_out_of_memory_repeats_the_step_with_the_same_noise():
    batch, sizes = MicroBatch(8), []

    def repeat(run, generator):
        return batch.repeat(run, generator)

    def loss(x, generator):
        noise = torch.randn(x.shape, generator=generator)
        sizes.append(batch.size)
        if len(sizes) in (3, 4):  # twice in the third step, after it has drawn
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return (noise * x).sum((1, 2, 3))

    x = pattern().sigmoid()
    recovered = list(pgd(loss, x, 0.1, 4, 0.02, repeat=repeat, momentum=0.9))
    assert sizes == [8, 8, 8, 4, 2, 2]
    plain = list(pgd(loss, x, 0.1, 4, 0.02, momentum=0.9))
    for ours, theirs in zip(recovered, plain, strict=True):
        assert torch.equal(ours.x_adv, theirs.x_adv)
        assert torch.equal(ours.losses["loss"], theirs.losses["loss"])


def test_out_of_memory_without_a_batch_to_halve_is_raised():
    def loss(x, generator):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(torch.OutOfMemoryError):
        next(pgd(loss, torch.rand(1, 3, 4, 4)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_the_gradients(tiny_ddpm, pictures, dtype):
    """The gradient of a mean over pixels is below what float16 can hold; most signs agree all the same."""
    half = copy.deepcopy(tiny_ddpm.unet).to(dtype)
    x = pictures(2)
    states = [
        next(antipure_steps(SimpleNamespace(unet=unet, scheduler=tiny_ddpm.scheduler), x, steps=1))
        for unet in (tiny_ddpm.unet, half)
    ]
    full, rounded = ((state.x_adv - x).sign() for state in states)
    assert (full == rounded).float().mean() > 0.95
    for name, size in states[0].grad_sizes.items():
        torch.testing.assert_close(states[1].grad_sizes[name], size, rtol=0.05, atol=0)


def test_gradients_are_taken_even_under_no_grad():
    c = pattern()
    x = torch.full_like(c, 0.5)
    with torch.no_grad():
        state = next(pgd(linear(c), x, 0.1, 2, 0.01))
        assert not torch.is_grad_enabled()
    torch.testing.assert_close(state.x_adv, x + 0.01 * c.sign())


def test_carried_sizes_give_the_direction_of_measured_ones():
    """Terms linear in x have gradients that never change: what is carried is what would be measured."""
    a, b = pattern(seed=1), pattern(seed=2)

    def loss(x, generator):
        return {"a": 30 * (a * x).sum((1, 2, 3)), "b": (b * x).sum((1, 2, 3))}

    x = torch.full_like(a, 0.5)
    states = list(pgd(loss, x, 0.3, 5, 0.001, balance="equal", weights={"b": 0.5}))
    size = a.abs().mean((1, 2, 3), keepdim=True), b.abs().mean((1, 2, 3), keepdim=True)
    step = 0.001 * (a / size[0] + 0.5 * b / size[1]).sign()
    for number, state in enumerate(states, 1):
        torch.testing.assert_close(state.x_adv, x + number * step, rtol=0, atol=1e-6)
        torch.testing.assert_close(state.grad_sizes["a"], 30 * size[0].flatten())


def test_sizes_are_measured_at_first_and_then_seldom():
    """A pass per term in the steps that measure, one pass in the others."""
    passes = []

    class Counted(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            passes[-1] += 1
            return gradient

    def loss(x, generator):
        passes.append(0)
        y = Counted.apply(x)
        return {"a": y.sum((1, 2, 3)), "b": y.square().sum((1, 2, 3))}

    list(pgd(loss, torch.rand(1, 3, 4, 4), steps=38, balance="equal"))
    assert [step for step, count in enumerate(passes, 1) if count == 2] == [1, 2, 4, 8, 16, 26, 36]
    assert set(passes) == {1, 2}


def test_a_term_that_was_flat_when_measured_is_left_out():
    c, calls = pattern(), []

    def loss(x, generator):
        calls.append(1)
        wild = (x if len(calls) % 2 == 0 else 0 * x).sum((1, 2, 3))
        return {"known": (c * x).sum((1, 2, 3)), "wild": wild}

    x = torch.full_like(c, 0.5)
    first, second, third = pgd(loss, x, 0.3, 3, 0.01, balance="equal")
    torch.testing.assert_close(first.x_adv, x + 0.01 * c.sign())
    assert not torch.equal(second.x_adv - first.x_adv, first.x_adv - x)  # measured: both terms
    assert third.x_adv.isfinite().all()


BAD = [
    ({"eta": 0}, "eta must be in"),
    ({"eta": -0.1}, "eta must be in"),
    ({"eta": 16}, "eta must be in.*units"),
    ({"steps": 0}, "steps must be at least 1"),
    ({"steps": "3"}, "steps must be a whole number, got '3'"),
    ({"seed": -1}, "seed must be at least 0, got -1"),
    ({"weights": {"loss": float("inf")}}, "weights.'loss'. must be a finite number, got inf"),
    ({"steps": 1.5}, "steps must be a whole number, got 1.5"),
    ({"step_size": 0}, "step_size must be positive"),
    ({"step_size": [0.1, 0.1, 0], "steps": 3}, "step_size must be positive"),
    (
        {"step_size": [0.1, 0.1], "steps": 3},
        "step_size must be one number, or one per step .3.; got .*0.1, 0.1.",
    ),
    ({"momentum": 1}, "momentum"),
    ({"balance": "fair"}, "balance must be 'sum' or 'equal'"),
    ({"start": torch.zeros(1, 3, 5, 5)}, "start must have x's shape"),
    ({"x": torch.full((1, 3, 4, 4), 2.0)}, "x must lie in"),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=lambda o: str(o)[:20])
def test_bad_arguments_fail_at_the_call(options, message):
    with pytest.raises(ValueError, match=message):
        pgd(linear(1.0), **({"x": torch.rand(1, 3, 4, 4)} | options))  # not iterated


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_gradient_that_was_no_number_is_told_at_the_end(momentum):
    """Such an image isn't changed any more, and must not pass for protected."""
    x, calls = torch.rand(3, 3, 4, 4), []

    def loss(x, generator):
        calls.append(1)
        values = x.mean((1, 2, 3))
        return values * torch.tensor([1, float("nan"), 1]) if len(calls) == 2 else values

    states = pgd(loss, x, steps=3, momentum=momentum)
    for _ in range(3):
        next(states)
    with pytest.raises(
        RuntimeError, match=r"NaN or infinite gradients of images \[1\] of the batch.*float32"
    ):
        next(states)
    calls.clear()
    assert len(list(pgd(lambda x, g: x.mean((1, 2, 3)), x, steps=3, momentum=momentum))) == 3


def test_inference_mode_is_named():
    with (
        torch.inference_mode(),
        pytest.raises(RuntimeError, match=r"inference_mode\(\) forbids the gradients"),
    ):
        pgd(linear(1.0), torch.rand(1, 3, 4, 4))


def test_bad_losses_are_named():
    x = torch.rand(2, 3, 4, 4)
    with pytest.raises(ValueError, match="one value per image"):
        next(pgd(lambda x, g: x.mean(), x))
    with pytest.raises(ValueError, match="unknown terms.*'b'.*the loss has.*'a'"):
        next(pgd(lambda x, g: {"a": x.mean((1, 2, 3))}, x, weights={"b": 1.0}))


def test_the_loss_s_size_costs_no_digit_in_low_precision():
    """In bfloat16, whose every product is rounded to 8 bits, PGD takes the steps of a loop by hand."""
    x, first, second = pattern((2, 3, 40, 40)).sigmoid(), pattern((8, 3, 3, 3)), pattern((3, 8, 3, 3))

    def loss(y, generator=None):
        inner = torch.nn.functional.conv2d(y.bfloat16(), first.bfloat16(), padding=1)
        outer = torch.nn.functional.conv2d(inner.tanh(), second.bfloat16(), padding=1)
        return outer.float().square().mean((1, 2, 3))

    by_hand = x
    for _ in range(5):
        leaf = by_hand.requires_grad_()
        (gradient,) = torch.autograd.grad(loss(leaf).sum(), leaf)
        by_hand = (leaf.detach() + gradient.sign() / 255).clamp(x - 8 / 255, x + 8 / 255).clamp(0, 1)
    torch.testing.assert_close(last(pgd(loss, x, 8 / 255, 5)).x_adv, by_hand, atol=1e-6, rtol=0)
