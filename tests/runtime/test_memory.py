"""The accounting against what autograd really keeps, and running out of memory against a smaller batch."""

import math
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_stable_diffusion

from antipure_lib.core.antipure import antipure, antipure_steps
from antipure_lib.core.diffusion import predict
from antipure_lib.core.tiles import tile_count
from antipure_lib.customization.lora import ATTENTION, add_lora
from antipure_lib.protections.end_to_end import end_to_end_steps
from antipure_lib.purifiers.diffpure import diffpure, gridpure
from antipure_lib.purifiers.freqpure import freqpure
from antipure_lib.runtime import memory
from antipure_lib.runtime.memory import fake, free_memory, memory_plan, peak_bytes, tile_bytes
from antipure_lib.runtime.micro_batch import MicroBatch


@pytest.fixture(scope="module")
def guided():
    """A small model with every kind of layer of guided-diffusion's."""
    from diffusers import UNet2DModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = UNet2DModel(
            sample_size=32,
            out_channels=6,
            block_out_channels=(32, 64, 64),
            layers_per_block=1,
            down_block_types=("ResnetDownsampleBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"),
            attention_head_dim=32,
            resnet_time_scale_shift="scale_shift",
            downsample_type="resnet",
            upsample_type="resnet",
        )
    return SimpleNamespace(unet=unet.eval().requires_grad_(False))


def tile(ddpm, gradients=True, recompute=False):
    """A call for one tile, and its backward pass, on real tensors."""
    x = torch.zeros((1, 3, 32, 32), dtype=ddpm.unet.dtype, requires_grad=gradients)
    with torch.set_grad_enabled(gradients), MicroBatch(1, recompute).recomputing(ddpm.unet):
        out = ddpm.unet(x, torch.zeros(1, dtype=torch.long)).sample
    if gradients:
        torch.autograd.grad(out.sum(), x)


# accounting


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("gradients", "recompute"), [(False, False), (True, False), (True, True)])
def test_counted_without_computing_is_what_a_run_takes(guided, dtype, gradients, recompute):
    guided.unet.to(dtype)
    real = peak_bytes(lambda: tile(guided, gradients, recompute))
    assert tile_bytes(guided, gradients, recompute) == pytest.approx(real, rel=0.02)
    assert not guided.unet.is_gradient_checkpointing
    assert all(p.device.type == "cpu" and not p.requires_grad for p in guided.unet.parameters())


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("adapted", [False, True])
def test_training_under_autocast_is_counted_as_it_runs(adapted, recompute):
    unet = tiny_stable_diffusion().unet
    if adapted:
        unet.requires_grad_(False)
        add_lora(unet, 4, ATTENTION, dtype=torch.float16)
    if recompute:
        unet.enable_gradient_checkpointing()

    def step(unet):
        z_t, c = torch.zeros((4, 4, 32, 32)), torch.zeros((4, 12, 16))
        with torch.autocast("cpu", torch.float16):
            out = unet(z_t, torch.zeros(4, dtype=torch.long), c).sample
        torch.autograd.grad(out.float().square().mean(), [p for p in unet.parameters() if p.requires_grad])

    with fake(unet) as copied:
        counted = peak_bytes(lambda: step(copied))
    assert counted == pytest.approx(peak_bytes(lambda: step(unet)), rel=0.02)


def test_counted_peak_is_what_autograd_saves_and_little_more(guided):
    guided.unet.float()
    weights = {p.untyped_storage().data_ptr() for p in guided.unet.parameters()}
    saved = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        x = torch.zeros((1, 3, 32, 32), requires_grad=True)
        out = guided.unet(x, torch.zeros(1, dtype=torch.long)).sample
    activations = sum(size for address, size in saved.items() if address not in weights)
    assert out.requires_grad and activations > 1e6
    assert activations < tile_bytes(guided, gradients=True) < 1.1 * activations


def test_recomputing_lowers_the_peak_and_a_forward_pass_alone_is_far_below(guided):
    kept, recomputed, forward = (
        tile_bytes(guided, *how) for how in [(True, False), (True, True), (False, False)]
    )
    assert forward < 0.5 * recomputed < 0.5 * 0.8 * kept


def test_peak_counts_storages_once_until_they_are_freed():
    before = torch.zeros(1000)

    def run():
        a = before + 1  # 4000 bytes
        b = a.view(10, 100).mT  # none of its own
        a += 1
        c = a.double()  # 8000
        del a, b
        d = before[:500]  # a view of what was there
        return c + d.sum()  # 4, and 8000 of the sum

    assert peak_bytes(run) == 8000 + 8000 + 4
    assert peak_bytes(lambda: before.t()) == 0


def test_a_fake_copy_computes_nothing_and_leaves_the_original(guided):
    weight = guided.unet.conv_in.weight
    with fake(guided.unet) as unet:
        out = unet(torch.zeros((4, 3, 32, 32), dtype=unet.dtype), torch.zeros(4, dtype=torch.long)).sample
        assert out.shape == (4, 6, 32, 32)
        with pytest.raises(Exception, match="_local_scalar_dense"):  # there is no number to ask for
            out.sum().item()
    assert guided.unet.conv_in.weight is weight and type(weight.data) is torch.Tensor


# plans


def planned(monkeypatch, images, free, gradients=True, calls=1, supports=True):
    monkeypatch.setattr(
        memory, "tile_bytes", lambda ddpm, gradients, recompute=False, kept=False: 40 if recompute else 100
    )
    monkeypatch.setattr(memory, "CPU_SHARE", 1)
    monkeypatch.setattr(memory, "TENSORS", 0)
    unet = torch.nn.Linear(1, 1, bias=False)
    unet._supports_gradient_checkpointing, unet.is_gradient_checkpointing = supports, False
    unet.config, unet.device = SimpleNamespace(sample_size=8, in_channels=3), "cpu"
    return memory_plan(SimpleNamespace(unet=unet), images, gradients, calls, free)


@pytest.mark.parametrize(
    ("images", "free", "batch", "recompute", "fits"),
    [
        (20, 2000, 20, False, True),  # all at once
        (20, 1999, 10, False, True),  # 19 would fit, but then there are two calls anyway
        (20, 799, 7, False, True),  # 7 fit: three calls
        (20, 199, 1, False, True),
        (20, 99, 2, True, True),  # two recomputed ones do
        (20, 39, 1, True, False),
        (1, 99, 1, True, True),
    ],
)
def test_plan_takes_the_largest_batch_that_fits(monkeypatch, images, free, batch, recompute, fits):
    plan = planned(monkeypatch, images, free)
    assert (plan.batch, plan.recompute, plan.fits) == (batch, recompute, fits)
    assert plan.total == 4 + batch * (40 if recompute else 100)
    assert f"{plan.images} images a step" in str(plan) and f"UNet {batch} at a time" in str(plan)
    assert ("recomputed" in str(plan)) == recompute


def test_plan_recomputes_blocks_only_for_gradients_and_where_the_unet_can(monkeypatch):
    assert not planned(monkeypatch, 20, 99, gradients=False).recompute
    assert not planned(monkeypatch, 20, 99, supports=False).recompute


def test_plan_of_a_chain_keeps_all_its_calls_or_recomputes_each(monkeypatch):
    assert planned(monkeypatch, 5, 1000, calls=2)[4:6] == (5, 2)
    assert planned(monkeypatch, 5, 999, calls=2)[4:6] == (3, 1)  # 4 a call would be two calls as well
    assert planned(monkeypatch, 1, 100, calls=2).total == 4 + 200  # one image can't be divided


@settings(deadline=None, max_examples=50)
@given(images=st.integers(1, 500), free=st.integers(0, 10**6), calls=st.integers(1, 4))
def test_what_is_said_to_fit_fits(images, free, calls):
    with pytest.MonkeyPatch.context() as patch:
        plan, more = (planned(patch, images, f, calls=calls) for f in (free, 2 * free))
    assert 1 <= plan.batch <= images
    assert plan.fits == (plan.calls * plan.batch * plan.tile <= free)
    assert plan.fits <= more.fits
    if not plan.recompute:
        assert more.batch >= plan.batch


def test_bad_plans_and_batches_are_named(tiny_ddpm, pictures):
    with pytest.raises(ValueError, match="images and calls must be at least 1"):
        memory_plan(tiny_ddpm, 0)
    for batch in (0, -1, 1.5, "all"):
        for run in (antipure_steps, gridpure, diffpure, freqpure, end_to_end_steps):
            with pytest.raises(ValueError, match="batch must be"):
                run(tiny_ddpm, pictures(1), batch=batch)
    with pytest.raises(ValueError, match="batch must be"):
        predict(tiny_ddpm, pictures(1), 3, batch=0)


def test_free_memory(monkeypatch):
    import psutil

    assert 0 < free_memory("cpu") < psutil.virtual_memory().total
    with monkeypatch.context() as fixed:
        fixed.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
        fixed.setenv("LOCAL_WORLD_SIZE", "2")
        assert free_memory("cpu") == 500  # the other half is the other process's
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (500, 9000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 70)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 30)
    assert free_memory("cuda") == 540


def test_auto_takes_what_fits_and_changes_nothing_but_memory(tiny_ddpm, pictures, monkeypatch):
    x, seen = pictures(1, 32, 32), []
    unet = Limited(tiny_ddpm.unet)
    ddpm = SimpleNamespace(unet=unet, scheduler=tiny_ddpm.scheduler)
    cost = tile_bytes(ddpm, gradients=True)
    rest = memory.TENSORS * 4 * 20 * 3 * 16 * 16
    monkeypatch.setattr(
        memory, "free_memory", lambda device: seen.append(device) or int((7.5 * cost + rest) / 0.7)
    )
    auto = antipure(ddpm, x, steps=2, batch="auto")
    assert seen == [torch.device("cpu")]
    assert max(unet.sizes) == 7  # of ten tiles at two timesteps: three calls
    assert torch.equal(auto, antipure(tiny_ddpm, x, steps=2, batch=7))


@pytest.mark.parametrize("balance", ["equal", "sum"])
@pytest.mark.parametrize("side", [16, 32])  # one tile and ten
def test_a_step_of_antipure_takes_no_more_than_planned(tiny_ddpm, pictures, monkeypatch, side, balance):
    """The two timesteps are one call or two, and a call of all tiles is only half of the step."""
    x, tiles = pictures(1, side, side), tile_count(side, side, 16)
    rest = memory.TENSORS * 4 * 2 * tiles * 3 * 16 * 16
    for batch in {2 * tiles, tiles, max(1, tiles - 1), 1}:
        kept = batch == 2 * tiles
        cost = tile_bytes(tiny_ddpm, gradients=True, kept=kept)
        free = int((batch * cost + rest) / memory.CPU_SHARE) + 2
        monkeypatch.setattr(memory, "free_memory", lambda device, free=free: free)
        plans = []
        made = memory.micro_batch(plans.append, tiny_ddpm, 2 * tiles, gradients=True)
        (plan,) = plans
        assert made.size == plan.batch <= batch and (plan.batch == batch or batch == tiles - 1)
        for size in {batch, plan.batch}:
            steps = antipure_steps(tiny_ddpm, x, steps=1, balance=balance, batch=size)
            peak = peak_bytes(partial(next, steps))
            assert 0.5 * size * cost < peak <= plan.rest + size * cost
        assert peak <= plan.total - plan.model


def test_tiles_in_parts_change_no_more_than_the_parts_do(tiny_ddpm, pictures):
    """Recomputing in the backward pass is the same computation: no bit depends on what is kept."""
    x = pictures(1, 32, 32)
    keeping = MicroBatch(10)  # of whose whole nothing is known
    parts = antipure(tiny_ddpm, x, steps=2, batch=10)
    assert torch.equal(parts, antipure(tiny_ddpm, x, steps=2, batch=keeping))


def test_a_plan_may_be_refused_before_the_work(tiny_ddpm, pictures):
    def refuse(plan):
        raise ValueError(f"not {plan.images} images")

    for run, images in ((antipure_steps, 20), (gridpure, 10)):
        with pytest.raises(ValueError, match=f"not {images} images"):
            run(tiny_ddpm, pictures(1, 32, 32), batch=refuse)


# running out of memory


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
    """A UNet in whose memory only so many images have room, from its call number `since` on."""

    def __init__(self, inner, most=math.inf, most_backward=math.inf, since=0):
        super().__init__()
        self.inner, self.config = inner, inner.config
        self.most, self.most_backward, self.since = most, most_backward, since
        self.sizes, self.errors = [], 0

    dtype = property(lambda self: self.inner.dtype)
    device = property(lambda self: self.inner.device)

    def check(self, n, most):
        if n > most and len(self.sizes) > self.since:
            self.errors += 1
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
    "freqpure": lambda ddpm, x, batch: freqpure(ddpm, x, t=2, rounds=1, t_ref=1, batch=batch),
}
PLACES = [(name, "most") for name in RUNS]
PLACES += [("antipure", "most_backward"), ("end_to_end", "most_backward")]


@pytest.mark.parametrize(("name", "limit"), PLACES)
def test_out_of_memory_gives_the_smaller_batchs_own_result(tiny_ddpm, pictures, name, limit):
    x, run = pictures(1, 32, 32), RUNS[name]
    ddpm = limited(tiny_ddpm, **{limit: 3})
    recovered = run(ddpm, x, None)
    # Ten tiles, AntiPure's at two timesteps: (20,) 10, 5, 2 at a time. Once each: the next call knows.
    assert ddpm.unet.errors == (3 if name == "antipure" else 2)
    assert torch.equal(recovered, run(tiny_ddpm, x, 2))
    assert ddpm.unet.sizes[-1] <= 2


@pytest.fixture(scope="module")
def pixelwise(tiny_ddpm):
    """A model without weights: not a bit of an image's result depends on the images beside it."""

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
    assert ddpm.unet.errors > 0


@pytest.mark.parametrize("since", [0, 4, 8, 10, 12])  # two calls a step of a chain, clean and not, twice
def test_one_size_holds_in_a_whole_step_with_its_recomputations(pictures, pixelwise, since):
    """Calls without gradients between those with: none may be repeated alone, in another size."""

    def run(ddpm):
        options = {"t": 2, "stride": 1, "iterations": 1, "noise_samples": 2, "batch": 5}
        return next(end_to_end_steps(ddpm, pictures(1, 32, 32), steps=1, **options))

    ddpm = limited(pixelwise, most=3, since=since)
    recovered, expected = run(ddpm), run(pixelwise)
    assert ddpm.unet.errors == 1
    assert torch.equal(recovered.x_adv, expected.x_adv)
    assert torch.equal(recovered.grad_sizes["loss"], expected.grad_sizes["loss"])


def test_the_unets_own_checkpointing_is_the_last_resort(tiny_ddpm, pictures):
    class Tight(Limited):
        _supports_gradient_checkpointing = True
        is_gradient_checkpointing = property(lambda self: self.inner.is_gradient_checkpointing)

        def enable_gradient_checkpointing(self):
            self.inner.enable_gradient_checkpointing()

        def disable_gradient_checkpointing(self):
            self.inner.disable_gradient_checkpointing()

        def check(self, n, most):
            if torch.is_grad_enabled() and not self.is_gradient_checkpointing:
                super().check(n, 0)

    x = pictures(1, 32, 32)
    ddpm = SimpleNamespace(unet=Tight(tiny_ddpm.unet), scheduler=tiny_ddpm.scheduler)
    recovered = antipure(ddpm, x, steps=2, batch=2)
    assert ddpm.unet.errors == 2  # two images, one image
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
        batch.retry(run)
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

    assert batch.retry(run) == 1


def test_a_graph_recorded_by_the_caller_is_not_repeated_behind_its_back(tiny_ddpm):
    """The recomputation in the backward pass must cut the images as the forward pass did."""
    ddpm = limited(tiny_ddpm, most=2)
    x = torch.zeros((4, 3, 16, 16), requires_grad=True)
    with pytest.raises(torch.OutOfMemoryError):
        predict(ddpm, x, 5)
    with torch.no_grad():
        assert torch.equal(predict(ddpm, x, 5)[0], predict(tiny_ddpm, x, 5, batch=2)[0])
