"""A UNet called on parts of a batch: as many images at a time as fit, half as many when memory runs out."""

from collections.abc import Callable, Sequence
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
    """Images per call of a network. All calls of a run share one object: what one call learns holds for all.

    size: at least 1. Raises ValueError for a smaller one.
    """

    def __init__(self, size: int):
        try:
            self.size = check_count(size, "batch")
        except ValueError:
            told = f"batch must be a number of images, at least 1, None or 'auto', got {size!r}"
            raise ValueError(told) from None
        self._retrying = False

    def retry(self, run: Callable[[], T], generators: Sequence[torch.Generator] = ()) -> T:
        """run(), and once more with half the size whenever memory runs out.

        generators: put back to where they were before the next attempt, so the result is the smaller size's
        own. Inside another retry of this object the error passes: the outer one repeats the whole, and one
        size holds in all of it. Raises the error when nothing smaller is left.
        """
        if self._retrying:
            return run()
        states = [generator.get_state() for generator in generators]
        self._retrying = True
        try:
            while True:
                try:
                    return run()
                except RuntimeError as error:
                    if not (_out_of_memory(error) and self.shrink()):
                        raise
                # Only here, after the error, are the tensors free that its traceback held.
                _release()
                for generator, state in zip(generators, states, strict=True):
                    generator.set_state(state)
        finally:
            self._retrying = False

    def shrink(self) -> bool:
        """Halve the size. Returns whether there was anything to halve."""
        self.size, before = max(1, self.size // 2), self.size
        return before > 1


class UNetInParts(MicroBatch):
    """A view of a UNet that takes a batch in parts: call it like the UNet itself.

    size: images per call. whole: images that a step sends through the UNet, in one call or several. A
    smaller size keeps the activations of one call alone: they are recomputed in the backward pass, for one
    more forward pass. recompute: the UNet's own checkpointing, block by block, is on; with gradients it is
    the last resort when a single image is too much.
    """

    def __init__(self, unet: torch.nn.Module, size: int, whole: int, recompute: bool, gradients: bool):
        super().__init__(size)
        self.unet, self.whole = view(unet, channels_last=not gradients), whole
        self.config, self.dtype, self.device = unet.config, unet.dtype, unet.device
        self._last_resort = gradients and not recompute and can_recompute(unet)
        if recompute:
            self.unet.enable_gradient_checkpointing()

    def __call__(self, x: torch.Tensor, t: int | torch.Tensor) -> SimpleNamespace:
        """The UNet's output, in `.sample`.  x: N×C×H×W. t: one index for all, or a LongTensor of N."""
        if not isinstance(t, torch.Tensor):  # diffusers would copy it to a GPU, and the host wait for that
            t = torch.full((), t, device=x.device)
        if torch.is_grad_enabled() and x.requires_grad:
            # Memory may run out in a backward pass as well: who takes gradients repeats both (`repeat`).
            return SimpleNamespace(sample=self._calls(x, t, recorded=True))
        return SimpleNamespace(sample=self.retry(lambda: self._calls(x, t, recorded=False)))

    def repeat(self, run: Callable[[], T], generator: torch.Generator) -> T:
        """run() with its gradients, repeated with fewer images per call when memory runs out."""
        return self.retry(run, [generator])

    def shrink(self) -> bool:
        """Halve the size; at size 1 switch on the UNet's own checkpointing, once."""
        if super().shrink():
            return True
        possible, self._last_resort = self._last_resort, False
        if possible:
            self.unet.enable_gradient_checkpointing()
        return possible

    def _calls(self, x, t, recorded):
        if self.size >= max(len(x), self.whole):
            return self._run(x, t)
        parts = zip(x.split(self.size), t.expand(len(x)).split(self.size), strict=True)
        if not recorded:
            return torch.cat([self._run(*part) for part in parts])
        # A frozen model has no active dropout, so there is no random state to restore.
        options = {"use_reentrant": False, "preserve_rng_state": False}
        return torch.cat([checkpoint(self._run, *part, **options) for part in parts])

    def _run(self, x, t):
        return self.unet(x, t).sample


def in_parts(
    ddpm: "DDPMPipeline", batch: int | str | None, images: int, gradients: bool, calls: int = 1
) -> "DDPMPipeline":
    """A model of pixels as one run uses it: `.scheduler`, and a `.unet` that is a view called in parts.

    batch: images per UNet call. None: all at once. "auto": what `memory_plan` finds room for. What is free
    at the moment decides that, and so the last bits of the result: another size is computed in another order.
    Any of them is halved if memory runs out all the same. images: that a step sends through the UNet.
    calls: see `memory_plan`. Raises ValueError for any other batch.
    """
    size, recompute = images if batch is None else batch, False
    if isinstance(batch, str) and batch == "auto":
        plan = memory_plan(ddpm, images, gradients, calls)
        size, recompute = plan.batch, plan.recompute
    unet = UNetInParts(ddpm.unet, MicroBatch(size).size, images, recompute, gradients)
    unet.size = min(unet.size, images)
    return SimpleNamespace(unet=unet, scheduler=ddpm.scheduler)


def _out_of_memory(error: RuntimeError) -> bool:
    from accelerate.utils.memory import should_reduce_batch_size  # knows the CPU's words, lately those of MPS

    words = "MPS backend out of memory"
    return isinstance(error, torch.OutOfMemoryError) or words in str(error) or should_reduce_batch_size(error)


def _release() -> None:
    from accelerate.utils.memory import clear_device_cache

    clear_device_cache(garbage_collection=True)
