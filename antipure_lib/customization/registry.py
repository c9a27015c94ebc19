"""Every customization by its name.

To add one, write a generator of `CustomizeState`s and enter it. The benchmark and the tests read the entry:

>>> from antipure_lib import load_faces, load_stable_diffusion
>>> from antipure_lib.customization.lora import lora_steps
>>> from antipure_lib.customization.registry import CUSTOMIZERS, Customizer
>>> def small_lora_steps(pipe, images, **options):
...     yield from lora_steps(pipe, images, **({"rank": 2} | options))
>>> CUSTOMIZERS["small-lora"] = Customizer(small_lora_steps, quick={"steps": 2})
>>> trained = CUSTOMIZERS["small-lora"](load_stable_diffusion(), load_faces("p01", "B"), steps=2)
>>> trained.unet.peft_config["default"].r
2
>>> del CUSTOMIZERS["small-lora"]
"""

from collections.abc import Callable, Iterator, Mapping
from inspect import signature
from typing import NamedTuple

import torch

from ..runtime.pipelines import StableDiffusionPipeline
from .adapted import adapted_lora_steps
from .dreambooth import dreambooth_steps
from .lora import lora_steps
from .training import CustomizeState, last_pipe


class Customizer(NamedTuple):
    """What is known about a customization. Its own arguments come from the generator's signature."""

    steps: Callable[..., Iterator[CustomizeState]]  # steps(pipe, images, seed=…, dtype=…, steps=…, …)
    quick: Mapping[str, object] = {}  # arguments that mean little work, for tests
    also: tuple[Callable, ...] = ()  # functions whose defaults decide the result as well

    def __call__(
        self, pipe: StableDiffusionPipeline, images: torch.Tensor, **options
    ) -> StableDiffusionPipeline:
        """A copy of `pipe` trained on the images, N×3×H×W in [0, 1]; errors are those of `steps`."""
        return last_pipe(self.steps(pipe, images, **options))

    @property
    def needs_prior(self) -> bool:
        """Whether it takes images of the class, as `prior_images`."""
        return "prior_images" in signature(self.steps).parameters


CUSTOMIZERS: dict[str, Customizer] = {
    "dreambooth": Customizer(dreambooth_steps, quick={"steps": 2, "n_prior": 2}),
    "lora": Customizer(lora_steps, quick={"steps": 2}),
    "adapted-lora": Customizer(adapted_lora_steps, {"steps": 2, "fit_steps": 2}, also=(lora_steps,)),
}
