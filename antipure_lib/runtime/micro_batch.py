"""How many images go through the UNet at a time: one number for a run, halved when memory runs out."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")


class MicroBatch:
    """Images per UNet call. All calls of a run share one object, so that what one call learns holds for all.

    size: at least 1. recompute: the UNet's own gradient checkpointing, block by block, is on. can_recompute:
    it may be switched on when even one image is too many. whole: images that a step with gradients sends
    through the UNet, in however many calls; a smaller size keeps the activations of none of them (see
    `predict`). Raises ValueError for a size below 1.
    """

    def __init__(self, size: int, recompute: bool = False, can_recompute: bool = False, whole: int = 0):
        if not (isinstance(size, int) and size >= 1):
            raise ValueError(f"batch must be a number of images, at least 1, got {size!r}")
        self.size, self.recompute, self.can_recompute, self.whole = size, recompute, can_recompute, whole
        self._retrying = False

    def retry(
        self, run: Callable[[], T], generators: Sequence[torch.Generator] = (), gradients: bool = False
    ) -> T:
        """run(), once more with half the size whenever memory runs out: the result is the smaller size's own.

        generators: put back to where they were before the next attempt. gradients: run takes them, so at size
        1 the UNet's own checkpointing is a last resort. Inside another retry of this object the error passes:
        the outer one repeats the whole, and one size holds in all of it, recomputations included.
        Raises the error when nothing smaller is left.
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
                    if not (_out_of_memory(error) and self._shrink(gradients)):
                        raise
                # Only here, after the error, are the tensors free that its traceback held.
                _release()
                for generator, state in zip(generators, states, strict=True):
                    generator.set_state(state)
        finally:
            self._retrying = False

    @contextmanager
    def recomputing(self, unet: torch.nn.Module) -> Iterator[None]:
        """Inside the block the UNet's own checkpointing is on if `recompute` says so; after it as before."""
        if not self.recompute or unet.is_gradient_checkpointing:
            yield
            return
        unet.enable_gradient_checkpointing()
        try:
            yield
        finally:
            unet.disable_gradient_checkpointing()

    def _shrink(self, gradients: bool) -> bool:
        if self.size > 1:
            self.size //= 2
        elif gradients and self.can_recompute and not self.recompute:
            self.recompute = True
        else:
            return False
        return True


def _out_of_memory(error: RuntimeError) -> bool:
    from accelerate.utils.memory import should_reduce_batch_size  # knows the CPU's words, lately those of MPS

    words = "MPS backend out of memory"
    return isinstance(error, torch.OutOfMemoryError) or words in str(error) or should_reduce_batch_size(error)


def _release() -> None:
    from accelerate.utils.memory import clear_device_cache

    clear_device_cache(garbage_collection=True)
