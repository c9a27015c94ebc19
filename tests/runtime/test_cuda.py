"""What only a CUDA device can show; skipped where there is none."""

import contextlib

import pytest
import torch

import antipure_lib as ap
from antipure_lib.runtime.memory import SHARE
from antipure_lib.runtime.noise import randn
from tools.models.loop import fit, starting_weights

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@contextlib.contextmanager
def at_most(tensors: int):
    """The process may reserve so many bytes of the device."""
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(tensors / torch.cuda.get_device_properties(0).total_memory)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@contextlib.contextmanager
def no_waiting():
    """Raises where the host waits for the device."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_it_is_chosen():
    assert ap.pick_device().type == "cuda" and ap.load_ddpm().unet.device.type == "cuda"
    assert ap.load_ddpm().unet.dtype in (torch.float32, ap.pick_dtype("cuda"))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_same_seed_gives_the_same_bits(dtype):
    ddpm, x = ap.load_ddpm(dtype=dtype), ap.load_faces("p01")[:2]
    made = [ap.antipure(ddpm, x, steps=5, seed=3) for _ in range(2)]
    assert made[0].device == x.device and torch.equal(*made)
    assert torch.equal(*(ap.gridpure(ddpm, made[0], iterations=2, seed=3) for _ in range(2)))


@pytest.mark.parametrize("steps_of", [ap.lora_steps, ap.dreambooth_steps])
def test_the_same_seed_teaches_the_same(steps_of):
    pipe, x = ap.load_stable_diffusion(), ap.load_faces("p01")
    options = {"prior_images": x.flip(-1)} if steps_of is ap.dreambooth_steps else {}
    for dtype in (None, ap.pick_dtype("cuda")):
        drawn = []
        for _ in range(2):
            *_, last = steps_of(pipe, x, steps=4, dtype=dtype, **options)
            drawn.append(ap.generate(last.pipe, "a photo of sks person", n=2, steps=4, dtype=dtype))
        assert torch.equal(*drawn)


@pytest.mark.parametrize("name", ["mist", "aspl", "simac"])
def test_the_same_seed_gives_the_rivals_the_same_bits(name):
    pipe, x, set_a = ap.load_stable_diffusion(), ap.load_faces("p01")[:2], ap.load_faces("p01", "A")
    made = [ap.protect(name, x, pipe=pipe, set_a=set_a, steps=3, seed=1) for _ in range(2)]
    assert torch.equal(*made) and not made[0].equal(x)


@pytest.mark.parametrize("dtype", DTYPES)
def test_it_protects_as_the_cpu_does(dtype):
    """Judged on the CPU, in float32, on the same noise: every term within 2 %."""
    x = ap.load_faces("p01")[:2]
    judge = ap.load_ddpm(device="cpu")
    made = [ap.antipure(ddpm, x, steps=8, step_size=4 / 255) for ddpm in (judge, ap.load_ddpm(dtype=dtype))]
    loss = ap.antipure_loss(judge, x.shape[-2:], noise_samples=4)
    with torch.no_grad():
        terms = [loss(y, torch.Generator().manual_seed(7)) for y in made]
    for name in terms[0]:
        torch.testing.assert_close(terms[1][name], terms[0][name], rtol=0.02, atol=0)


def test_it_purifies_as_the_cpu_does():
    x = ap.load_faces("p01")[:2]
    on_cpu, here = (ap.gridpure(ap.load_ddpm(device=device), x, iterations=3) for device in ("cpu", "cuda"))
    torch.testing.assert_close(here, on_cpu, atol=1.01 / 255, rtol=0)


LOOPS = {
    "sum": lambda ddpm, x: ap.antipure_steps(ddpm, x, steps=4),
    "equal": lambda ddpm, x: ap.antipure_steps(ddpm, x, steps=4, balance="equal"),
    "gridpure": lambda ddpm, x: ap.gridpure_steps(ddpm, x, iterations=3),
}


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_never_waits_for_the_device(name):
    states = LOOPS[name](ap.load_ddpm(), ap.load_faces("p01")[:2].cuda())
    next(states)  # the libraries' first calls wait
    with no_waiting():
        for _ in states:
            pass


def test_the_plan_is_what_it_takes():
    """What is taken is most of what is planned, and no more than the share left for workspaces allows."""
    ddpm, x = ap.load_ddpm(), ap.load_faces("p01").cuda()
    images = 2 * 10 * len(x)
    plan = ap.memory_plan(ddpm, images)
    *_, last = ap.antipure_steps(ddpm, x, steps=2)
    del last
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    *_, last = ap.antipure_steps(ddpm, x, steps=2)
    taken = torch.cuda.max_memory_allocated() - before
    assert plan.batch == images and plan.fits
    assert 0.5 * (plan.total - plan.model) < taken <= (plan.total - plan.model) / SHARE


def test_when_memory_runs_out_smaller_batches_end_the_work():
    ddpm, x = ap.load_ddpm(), ap.load_faces("p01").cuda()
    images = 2 * 10 * len(x)
    needed, sizes = ap.memory_plan(ddpm, images), []
    watch = ddpm.unet.register_forward_hook(lambda unet, call, out: sizes.append(len(call[0])))
    with at_most(torch.cuda.memory_allocated() + (needed.total - needed.model) // 3):
        *_, ended = ap.antipure_steps(ddpm, x, steps=3)
    watch.remove()
    size = max(sizes[-2:])  # the last call may be a rest
    assert size < images
    *_, planned = ap.antipure_steps(ddpm, x, steps=3, batch=size)
    assert torch.equal(ended.x_adv, planned.x_adv)


def test_what_is_trained_there_goes_on_there_and_is_read_on_a_cpu(tmp_path):
    model, averaged = torch.nn.Linear(3, 2).cuda(), torch.nn.Linear(3, 2).cuda()

    def loss(step, generator):
        return model(randn((8, 3), generator, "cuda")).square().mean()

    for steps in (2, 4):
        fit(tmp_path, {"unet": model}, {"unet": averaged}, loss, steps=steps, lr=0.1, checkpoint_every=2)
    found = starting_weights(tmp_path, "unet")
    assert {value.device.type for value in found.values()} == {"cpu"}
    assert torch.equal(found["weight"], averaged.weight.cpu())
    assert [line.split(",")[0] for line in (tmp_path / "loss.csv").read_text().splitlines()] == ["2", "4"]
