"""Running out of memory against a smaller batch's own result."""

import math
from types import SimpleNamespace

import pytest
import torch

from antipure_lib.core.antipure import antipure
from antipure_lib.core.diffusion import predict
from antipure_lib.protections.end_to_end import end_to_end_steps
from antipure_lib.purifiers.diffpure import diffpure
from antipure_lib.purifiers.freqpure import freqpure
from antipure_lib.purifiers.gridpure import gridpure
from antipure_lib.runtime.micro_batch import MicroBatch, in_parts


class OutOfMemoryInBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, out, unet):
        ctx.unet = unet
        return out.clone()

    @staticmethod
    def backward(ctx, gradient):
        ctx.unet.check(len(gradient), ctx.unet.most_backward)
        return gradient, None


class Limited(torch.nn.Module):
    """A UNet in whose memory only so many images have room, from its call number `since` on.

    Its views write into the same lists.
    """

    def __init__(self, inner, most=math.inf, most_backward=math.inf, since=0):
        super().__init__()
        self.inner, self.config = inner, inner.config
        self.most, self.most_backward, self.since = most, most_backward, since
        self.sizes, self.errors = [], []

    dtype = property(lambda self: self.inner.dtype)
    device = property(lambda self: self.inner.device)

    def check(self, n, most):
        if n > most and len(self.sizes) > self.since:
            self.errors.append(n)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    def forward(self, x, t):
        self.sizes.append(len(x))
        self.check(len(x), self.most)
        return SimpleNamespace(sample=OutOfMemoryInBackward.apply(self.inner(x, t).sample, self))


def limited(ddpm, **limits):
    return SimpleNamespace(unet=Limited(ddpm.unet, **limits), scheduler=ddpm.scheduler)


RUNS = {
    "antipure": lambda ddpm, x, batch: antipure(ddpm, x, steps=2, seed=1, batch=batch),
    "end_to_end": lambda ddpm, x, batch: (
        list(end_to_end_steps(ddpm, x, steps=2, t=2, stride=1, iterations=1, batch=batch))[-1].x_adv
    ),
    "gridpure": lambda ddpm, x, batch: gridpure(ddpm, x, t=2, iterations=2, batch=batch),
    "diffpure": lambda ddpm, x, batch: diffpure(ddpm, x, t=3, batch=batch),
    "freqpure": lambda ddpm, x, batch: freqpure(ddpm, x, t=2, rounds=1, batch=batch),
}
PLACES = [(name, "most") for name in RUNS]
PLACES += [("antipure", "most_backward"), ("end_to_end", "most_backward")]


@pytest.mark.parametrize(("name", "limit"), PLACES)
def test_out_of_memory_gives_the_smaller_batchs_own_result(tiny_ddpm, pictures, name, limit):
    x, run = pictures(1, 32, 32), RUNS[name]
    ddpm = limited(tiny_ddpm, **{limit: 3})
    recovered = run(ddpm, x, None)
    # Ten tiles, AntiPure's at two timesteps: (20,) 10, 5, 2 at a time. Once each: the next call knows.
    assert len(ddpm.unet.errors) == (3 if name == "antipure" else 2)
    assert torch.equal(recovered, run(tiny_ddpm, x, 2))
    assert ddpm.unet.sizes[-1] <= 2


@pytest.fixture(scope="module")
def pixelwise(tiny_ddpm):
    """A model without weights: no bit of an image's result depends on the images next to it."""

    class Pixelwise(torch.nn.Module):
        config, dtype, device = tiny_ddpm.unet.config, torch.float32, torch.device("cpu")

        def forward(self, x, t):
            return SimpleNamespace(sample=(1 + x.roll(1, -1)) * x / 2)

    return SimpleNamespace(unet=Pixelwise(), scheduler=tiny_ddpm.scheduler)


@pytest.mark.parametrize(("name", "limit"), PLACES)
def test_out_of_memory_half_way_draws_the_same_noise_again(pictures, pixelwise, name, limit):
    x, run = pictures(1, 32, 32), RUNS[name]
    ddpm = limited(pixelwise, since=1, **{limit: 4})
    expected, recovered = run(pixelwise, x, None), run(ddpm, x, None)
    assert torch.equal(recovered, expected) and not torch.equal(recovered, x)
    assert ddpm.unet.errors


@pytest.mark.parametrize("since", [0, 4, 8, 10, 12])  # two calls a step of a chain, clean and not, twice
def test_one_size_holds_in_a_whole_step_with_its_recomputations(pictures, pixelwise, since):
    """Calls without gradients between those with: none may be repeated alone, in another size."""

    def run(ddpm):
        options = {"t": 2, "stride": 1, "iterations": 1, "noise_samples": 2, "batch": 5}
        return next(end_to_end_steps(ddpm, pictures(1, 32, 32), steps=1, **options))

    ddpm = limited(pixelwise, most=3, since=since)
    recovered, expected = run(ddpm), run(pixelwise)
    assert len(ddpm.unet.errors) == 1
    assert torch.equal(recovered.x_adv, expected.x_adv)
    assert torch.equal(recovered.grad_sizes["loss"], expected.grad_sizes["loss"])


def test_the_unets_own_checkpointing_is_the_last_resort(tiny_ddpm, pictures):
    class Tight(Limited):
        _supports_gradient_checkpointing = True
        is_gradient_checkpointing = property(lambda self: self.inner.is_gradient_checkpointing)

        def enable_gradient_checkpointing(self):
            self.inner.enable_gradient_checkpointing()

        def check(self, n, most):
            if torch.is_grad_enabled() and not self.is_gradient_checkpointing:
                super().check(n, 0)

    x = pictures(1, 32, 32)
    ddpm = SimpleNamespace(unet=Tight(tiny_ddpm.unet), scheduler=tiny_ddpm.scheduler)
    recovered = antipure(ddpm, x, steps=2, batch=2)
    assert ddpm.unet.errors == [2, 1]
    assert torch.equal(recovered, antipure(tiny_ddpm, x, steps=2, batch=1))
    assert not tiny_ddpm.unet.is_gradient_checkpointing


def test_when_nothing_smaller_is_left_the_error_is_raised(tiny_ddpm, pictures):
    for name, run in RUNS.items():
        ddpm = limited(tiny_ddpm, most=0, since=-1)
        with pytest.raises(torch.OutOfMemoryError, match="out of memory"):
            run(ddpm, pictures(1, 32, 32), 4)
        assert ddpm.unet.sizes == [4, 2, 1], name


def test_other_errors_pass_at_once():
    calls = []

    def run():
        calls.append(None)
        raise RuntimeError("shapes don't match")

    batch = MicroBatch(8)
    with pytest.raises(RuntimeError, match="shapes"):
        batch.repeat(run)
    assert len(calls) == 1 and batch.size == 8


@pytest.mark.parametrize(
    "words", ["MPS backend out of memory (MPS allocated: 9 GB)", "DefaultCPUAllocator: can't allocate memory"]
)
def test_other_devices_words_are_understood(words):
    batch = MicroBatch(8)

    def run():
        if batch.size > 1:
            raise RuntimeError(words)
        return batch.size

    assert batch.repeat(run) == 1


def test_a_graph_recorded_by_the_caller_is_not_repeated_behind_its_back(tiny_ddpm):
    """The recomputation in the backward pass must cut the images as the forward pass did."""
    short, two = (in_parts(ddpm, n, 4, True) for ddpm, n in ((limited(tiny_ddpm, most=2), 4), (tiny_ddpm, 2)))
    x = torch.zeros((4, 3, 16, 16), requires_grad=True)
    with pytest.raises(torch.OutOfMemoryError):
        predict(short, x, 5)
    with torch.no_grad():
        assert torch.equal(predict(short, x, 5)[0], predict(two, x, 5)[0])
