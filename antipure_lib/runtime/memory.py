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

from .checks import check_counts
from .pipelines import DDPMPipeline
from .unet import sample_size

SHARE = 0.85  # of what is free: convolutions' workspaces and an allocator's gaps also need room
CPU_SHARE = 0.7  # the gaps are larger where freed memory is kept (see `keep_freed_memory`)
TENSORS = 12  # float32 tensors of an image's size that a step holds next to the UNet: noise, x_t, x̂0, DCTs, …


class MemoryPlan(NamedTuple):
    """What a run is going to need, in bytes and numbers of images; its `str` is a line to print."""

    model: int  # the UNet's weights, which are on the device already
    tile: int  # activations of one image (a tile, or one of its two timesteps) in a UNet call
    rest: int  # what a step holds next to the UNet
    images: int  # that a step sends through the UNet, in one call or several
    batch: int  # of them held at one time, and the most of one call
    calls: int  # whose activations are held at one time
    recompute: bool  # the UNet's own gradient checkpointing is on
    free: int  # on the device, next to the weights
    total: int  # model + rest + calls · batch · tile

    @property
    def fits(self) -> bool:
        """Whether all of it fits into what is free."""
        return self.total - self.model <= self.free

    def __str__(self) -> str:
        def size(count: int) -> str:
            return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"

        held = f"{self.calls} calls of {self.batch}" if self.calls > 1 else f"{self.batch}"
        return (
            f"memory: weights {size(self.model)}, {self.images} images a step {size(self.rest)}, in the UNet "
            f"{held} at a time at {size(self.tile)} each"
            f"{', recomputed block by block' if self.recompute else ''}: {size(self.total)} in all; "
            f"{size(self.free)} {'are' if self.fits else 'are all that is'} free beside the weights"
        )


def memory_plan(
    ddpm: DDPMPipeline,
    images: int,  # that a step sends through the UNet in all, at least 1
    gradients: bool = True,  # a protection's; False: a purifier's
    calls: int = 1,  # of the UNet, at least 1, whose activations are held until the backward pass
    free: int | None = None,  # bytes; None: `free_memory`
) -> MemoryPlan:
    """The largest micro-batch that fits into what is free, and what all of it takes (see `tile_bytes`).

    With gradients, a batch smaller than `images` means that calls are recomputed in the backward pass. If a
    single image is still too much, so are the blocks within the UNet.
    Raises ValueError for values outside their range.
    """
    check_counts(images=images, calls=calls)
    check_counts(0, free=0 if free is None else free)
    unet, side = ddpm.unet, sample_size(ddpm)
    free = free_memory(unet.device) if free is None else free
    rest = TENSORS * 4 * images * unet.config.in_channels * side**2
    room = int((CPU_SHARE if torch.device(unet.device).type == "cpu" else SHARE) * free) - rest
    recompute, tile = False, tile_bytes(ddpm, gradients)
    if tile > room and gradients and can_recompute(unet):
        recompute, tile = True, tile_bytes(ddpm, gradients, recompute=True)
    # All terms but the last leave activations in place; the backward pass makes its own on top.
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

    On a CPU the processes of a launcher share what the system has. A container's limit may be lower.
    """
    device = torch.device(device)
    if device.type == "cuda":
        reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + reserve
    if device.type == "mps":
        return max(0, torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    import psutil  # accelerate also needs it

    return psutil.virtual_memory().available // int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # torchrun's


def tile_bytes(
    ddpm: DDPMPipeline,
    gradients: bool = False,
    recompute: bool = False,  # with the UNet's own gradient checkpointing
    kept: bool = False,  # another backward pass follows
) -> int:
    """The most bytes that one image's tensors take in a call of the UNet, and in its backward pass.

    They are counted without computing anything (see `fake`), without weights and a kernel's own memory.
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
    """A copy of the module without numbers: inside the block, all new tensors have a shape and no memory."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        tensors = (*module.parameters(), *module.buffers())
        yield copy.deepcopy(module, {id(t): mode.from_tensor(t) for t in tensors})


def peak_bytes(run: Callable[[], object]) -> int:
    """The most bytes that the tensors made by `run` hold at one time, on any device, real or fake."""
    with _Peak() as counted:
        run()
    return counted.peak


class _Peak(TorchDispatchMode):
    """Adds up the storages that operations return, until each is freed."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.known: dict[int, weakref.ref] = {}  # by id, nobody else's until a storage is freed

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        for given in _storages((args, kwargs)):
            self._note(given, 0)  # from before, such as a weight; an operation may return a view of it
        out = operation(*args, **kwargs or {})
        for made in _storages(out):
            self._note(made, made.nbytes())
        return out

    def _note(self, storage, size):
        key = id(storage)
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
