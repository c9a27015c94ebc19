"""How many images a UNet call can take: what is free, and what one costs, counted before it is computed."""

import copy
import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .pipelines import DDPMPipeline
from .unet import sample_size

SHARE = 0.85  # of what is free is used: convolutions' workspaces and an allocator's gaps need room, too

CPU_SHARE = 0.7  # the gaps are larger where freed memory is kept (see `keep_freed_memory`)

TENSORS = 12  # float32 tensors of an image's size that a step holds beside the UNet: noise, x_t, x̂0, DCTs, …


class MemoryPlan(NamedTuple):
    """What a run is going to need; its `str` is a line to print. All in bytes but images and batch."""

    model: int  # the UNet's weights, which are on the device already
    tile: int  # activations of one image (a tile, or one of its two timesteps) in a UNet call
    rest: int  # what a step holds beside the UNet
    images: int  # that a step sends through the UNet, in one call or several
    batch: int  # of them held at one time, and the most of one call
    calls: int  # whose activations are held at one time
    recompute: bool  # the UNet's own gradient checkpointing is on
    free: int  # on the device, beside the weights
    total: int  # model + rest + calls · batch · tile

    @property
    def fits(self) -> bool:
        return self.total - self.model <= self.free

    def __str__(self) -> str:
        sizes = (self.model, self.rest, self.tile, self.total, self.free)
        model, rest, tile, total, free = (
            f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB" for size in sizes
        )
        held = f"{self.calls} calls of {self.batch}" if self.calls > 1 else f"{self.batch}"
        return (
            f"memory: weights {model}, {self.images} images a step {rest}, in the UNet {held} at a time at "
            f"{tile} each{', recomputed block by block' if self.recompute else ''}: {total} in all; "
            f"{free} {'are' if self.fits else 'are all that is'} free beside the weights"
        )


def memory_plan(
    ddpm: "DDPMPipeline",
    images: int,  # that a step sends through the UNet in all; AntiPure with ETG: two for each tile
    gradients: bool = True,  # a protection's; False: a purifier's
    calls: int = 1,  # in a chain that is differentiated through: activations of so many live at one time
    free: int | None = None,  # bytes; None: `free_memory`
) -> MemoryPlan:
    """The largest micro-batch that fits into what is free, and what all of it takes.

    With gradients, a batch smaller than `images` means that calls are recomputed in the backward pass (see
    `UNetInParts`), which leaves one call's activations. If a single image is still too much, so are the
    blocks within the UNet. All at once means that the activations of all `images` stay, in however many calls
    they were made, and through the backward passes of all terms. What a plan counts are tensors: see
    `tile_bytes`.
    Raises ValueError for images or calls < 1.
    """
    if images < 1 or calls < 1:
        raise ValueError(f"images and calls must be at least 1, got {images} and {calls}")
    unet, side = ddpm.unet, sample_size(ddpm)
    free = free_memory(unet.device) if free is None else free
    rest = TENSORS * 4 * images * unet.config.in_channels * side**2
    room = int((CPU_SHARE if torch.device(unet.device).type == "cpu" else SHARE) * free) - rest
    recompute, tile = False, tile_bytes(ddpm, gradients)
    if tile > room and gradients and can_recompute(unet):
        recompute, tile = True, tile_bytes(ddpm, gradients, recompute=True)
    # All terms but the last leave activations in place, on top of which the backward pass makes its own.
    kept = tile_bytes(ddpm, gradients, recompute, kept=True) if gradients else tile
    if calls * images * kept <= room or images == 1:
        batch, tile = images, kept
    else:
        calls, most = 1, max(1, min(room // tile, images - 1))
        batch = -(-images // -(-images // most))  # as many calls as `most` needs, all of about one size
    model = sum(p.numel() * p.element_size() for p in unet.parameters())
    total = model + rest + calls * batch * tile
    return MemoryPlan(model, tile, rest, images, batch, calls, recompute, free, total)


def free_memory(device: torch.device | str) -> int:
    """Bytes that new tensors on the device can have, what torch keeps in reserve included.

    A CPU's is what the system calls available, shared among the processes that a launcher started here; a
    container's own limit may be lower.
    """
    device = torch.device(device)
    if device.type == "cuda":
        reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + reserve
    if device.type == "mps":
        return max(0, torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    import psutil  # which accelerate needs, too

    return psutil.virtual_memory().available // int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # torchrun's


def tile_bytes(
    ddpm: "DDPMPipeline", gradients: bool = False, recompute: bool = False, kept: bool = False
) -> int:
    """The most bytes that one image's tensors take in a call of the UNet, and in its backward pass.

    Counted without computing anything, see `fake`. The weights aren't in it, nor is what a kernel takes for
    itself. recompute: with the UNet's own gradient checkpointing. kept: the backward pass leaves the
    activations where they are, because another is to follow.
    """
    side, device, dtype = sample_size(ddpm), ddpm.unet.device, ddpm.unet.dtype
    with fake(ddpm.unet) as unet, torch.set_grad_enabled(gradients):
        unet.requires_grad_(False)
        if recompute:
            unet.enable_gradient_checkpointing()

        def run():
            shape = (1, unet.config.in_channels, side, side)
            x = torch.zeros(shape, device=device, dtype=dtype, requires_grad=gradients)
            out = unet(x, torch.zeros(1, device=device, dtype=torch.long)).sample
            if gradients:
                torch.autograd.grad(out.sum(), x, retain_graph=kept)

        return peak_bytes(run)


@contextmanager
def fake(module: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """A copy that behaves like the module but computes nothing and takes no memory.

    Inside the block all new tensors are fake, too: they have a shape, a precision and a device, no numbers.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        tensors = (*module.parameters(), *module.buffers())
        yield copy.deepcopy(module, {id(t): mode.from_tensor(t) for t in tensors})


def peak_bytes(run: Callable[[], object]) -> int:
    """The most bytes that the tensors which `run` makes hold at one time, on any device, real or fake."""
    with _Peak() as counted:
        run()
    return counted.peak


class _Peak(TorchDispatchMode):
    """Adds up the storages that operations return, until each is freed."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.known = {}

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        for given in _storages((args, kwargs)):
            self._note(given, 0)  # from before, such as a weight, of which an operation may return a view
        out = operation(*args, **kwargs)
        for made in _storages(out):
            self._note(made, made.nbytes())
        return out

    def _note(self, storage, size):
        key = id(storage)  # nobody else's until it is freed
        if key in self.known:
            return
        self.now += size
        self.peak = max(self.peak, self.now)

        def freed(_):
            self.now -= size
            del self.known[key]

        self.known[key] = weakref.ref(storage, freed)


def _storages(tree):
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def can_recompute(unet: torch.nn.Module) -> bool:
    """Whether the UNet's own gradient checkpointing can be switched on, and isn't."""
    return getattr(unet, "_supports_gradient_checkpointing", False) and not unet.is_gradient_checkpointing
