"""A UNet called on parts of a batch: as many images at a time as fit, half as many when memory runs out."""

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import TypeVar

import torch
from torch.utils.checkpoint import checkpoint

from .checks import check_count
from .memory import can_recompute, memory_plan
from .pipelines import DDPMPipeline
from .unet import view

T = TypeVar("T")


class MicroBatch:
    """Images per call of a network, ≥ 1 or ValueError: one object, and so one size, for a whole run."""

    def __init__(self, size: int):
        try:
            self.size = check_count(size, "batch")
        except ValueError:
            told = f"batch must be a number of images, at least 1, None or 'auto', got {size!r}"
            raise ValueError(told) from None
        self._repeating = False

    def repeat(self, run: Callable[[], T], *generators: torch.Generator) -> T:
        """run(), and again with half the size whenever memory runs out.

        generators: set back before each attempt, so the result is the smaller size's own.
        Inside another `repeat` of this object the error passes: the outer one repeats the whole.
        Raises the error when nothing smaller is left.
        """
        if self._repeating:
            return run()
        states = [generator.get_state() for generator in generators]
        self._repeating = True
        try:
            while True:
                try:
                    return run()
                except RuntimeError as error:
                    if not (_out_of_memory(error) and self.shrink()):
                        raise
                from accelerate.utils.memory import clear_device_cache

                # Only here, after the error, are the tensors free that its traceback held.
                clear_device_cache(garbage_collection=True)
                for generator, state in zip(generators, states, strict=True):
                    generator.set_state(state)
        finally:
            self._repeating = False

    def shrink(self) -> bool:
        """Halve the size. Returns whether there was anything to halve."""
        self.size, before = max(1, self.size // 2), self.size
        return before > 1


class UNetInParts(MicroBatch):
    """A view of a UNet that takes a batch in parts: call it like the UNet itself.

    size: images per call. whole: images that a step sends through the UNet, in one call or several.
    A size below `whole` keeps the activations of one call alone. The backward pass recomputes the others.
    recompute: the UNet's own checkpointing is on. With gradients it is the last resort at size 1.
    """

    def __init__(self, unet: torch.nn.Module, size: int, whole: int, recompute: bool, gradients: bool):
        super().__init__(size)
        self.unet, self.whole, self.size = view(unet, channels_last=not gradients), whole, min(size, whole)
        self.config, self.dtype, self.device = unet.config, unet.dtype, unet.device
        self._last_resort = gradients and not recompute and can_recompute(unet)
        if recompute:
            self.unet.enable_gradient_checkpointing()

    def __call__(self, x: torch.Tensor, t: int | torch.Tensor) -> SimpleNamespace:
        """The UNet's output, in `.sample`.  x: N×C×H×W. t: one index for all, or a LongTensor of N."""
        if not isinstance(t, torch.Tensor):  # diffusers would copy it to a GPU, and the host wait for that
            t = torch.full((), t, device=x.device)
        if torch.is_grad_enabled() and x.requires_grad:
            # Memory may run out in a backward pass as well: who takes gradients repeats both.
            return SimpleNamespace(sample=self._calls(x, t, recorded=True))
        return SimpleNamespace(sample=self.repeat(lambda: self._calls(x, t, recorded=False)))

    def shrink(self) -> bool:
        """Halve the size; at size 1 switch on the UNet's own checkpointing, once."""
        if super().shrink():
            return True
        possible, self._last_resort = self._last_resort, False
        if possible:
            self.unet.enable_gradient_checkpointing()
        return possible

    def _calls(self, x, t, recorded):
        def run(x, t):
            return self.unet(x, t).sample

        if self.size >= max(len(x), self.whole):
            return run(x, t)
        if recorded:
            # A frozen model has no active dropout, so there is no random state to restore.
            run = partial(checkpoint, run, use_reentrant=False, preserve_rng_state=False)
        parts = zip(x.split(self.size), t.expand(len(x)).split(self.size), strict=True)
        return torch.cat([run(*part) for part in parts])


def in_parts(
    ddpm: DDPMPipeline, batch: int | str | None, images: int, gradients: bool, calls: int = 1
) -> DDPMPipeline:
    """A model of pixels as one run uses it: `.scheduler`, and a `.unet` that is a view called in parts.

    batch: images per UNet call, at least 1; None: all; "auto": what `memory_plan` finds room for. The size
    decides the result's last bits. It is halved when memory runs out. images, calls: as there.
    Raises ValueError for values outside their range.
    """
    size, recompute = images if batch is None else batch, False
    if isinstance(batch, str) and batch == "auto":
        plan = memory_plan(ddpm, images, gradients, calls)
        size, recompute = plan.batch, plan.recompute
    unet = UNetInParts(ddpm.unet, size, images, recompute, gradients)
    return SimpleNamespace(unet=unet, scheduler=ddpm.scheduler)


def _out_of_memory(error: RuntimeError) -> bool:
    from accelerate.utils.memory import should_reduce_batch_size  # knows the CPU's words, lately those of MPS

    words = "MPS backend out of memory"
    return isinstance(error, torch.OutOfMemoryError) or words in str(error) or should_reduce_batch_size(error)
