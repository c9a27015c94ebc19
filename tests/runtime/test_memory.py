"""The accounting against what autograd really keeps, and plans against what is free."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from adm import random_adm
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_stable_diffusion

from antipure_lib.core.antipure import antipure, antipure_steps
from antipure_lib.core.tiles import tile_count
from antipure_lib.customization.lora import ATTENTION, add_lora
from antipure_lib.models.guided_diffusion import convert
from antipure_lib.protections.end_to_end import end_to_end_steps
from antipure_lib.purifiers.diffpure import diffpure
from antipure_lib.purifiers.freqpure import freqpure
from antipure_lib.purifiers.gridpure import gridpure
from antipure_lib.runtime import memory
from antipure_lib.runtime.memory import fake, free_memory, memory_plan, peak_bytes, tile_bytes
from antipure_lib.runtime.unet import view


@pytest.fixture(scope="module")
def guided():
    """A small model with every kind of layer of guided-diffusion's."""
    adm = random_adm(mults=(1, 2, 2), attention=(1, 2)).float()
    return SimpleNamespace(unet=convert(adm.state_dict(), head_channels=32).unet.requires_grad_(False))


def tile(ddpm, gradients=True, recompute=False):
    """A call for one tile, and its backward pass, on real tensors."""
    x = torch.zeros((1, 3, 32, 32), dtype=ddpm.unet.dtype, requires_grad=gradients)
    unet = view(ddpm.unet)
    if recompute:
        unet.enable_gradient_checkpointing()
    with torch.set_grad_enabled(gradients):
        out = unet(x, torch.zeros(1, dtype=torch.long)).sample
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
    with pytest.raises(ValueError, match="(images|calls) must be at least 1"):
        memory_plan(tiny_ddpm, 0)
    for batch in (0, -1, 1.5, True, "all", "7", [2], lambda plan: 2):
        for run in (antipure_steps, gridpure, diffpure, freqpure, end_to_end_steps):
            with pytest.raises(ValueError, match="batch must be"):
                run(tiny_ddpm, pictures(1), batch=batch)


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
    x, seen, sizes = pictures(1, 32, 32), [], []
    cost = tile_bytes(tiny_ddpm, gradients=True)
    rest = memory.TENSORS * 4 * 20 * 3 * 16 * 16
    monkeypatch.setattr(
        memory, "free_memory", lambda device: seen.append(device) or int((7.5 * cost + rest) / 0.7)
    )
    handle = tiny_ddpm.unet.register_forward_hook(lambda unet, call, out: sizes.append(len(call[0])))
    try:
        auto = antipure(tiny_ddpm, x, steps=2, batch="auto")
    finally:
        handle.remove()
    assert seen == [torch.device("cpu")]
    assert max(sizes) == 7  # of ten tiles at two timesteps: three calls
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
        plan = memory_plan(tiny_ddpm, 2 * tiles)
        assert plan.batch <= batch and (plan.batch == batch or batch == tiles - 1)
        for size in {batch, plan.batch}:
            steps = antipure_steps(tiny_ddpm, x, steps=1, balance=balance, batch=size)
            peak = peak_bytes(partial(next, steps))
            assert 0.5 * size * cost < peak <= plan.rest + size * cost
        assert peak <= plan.total - plan.model
