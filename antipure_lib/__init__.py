"""AntiPure in small pieces: protect photos, purify them, customize a model on them, judge what comes out.

A module is imported when one of its names is first used: the command line starts without torch.
"""

# ruff: noqa: F401  (everything under TYPE_CHECKING is re-exported)

import ast
import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

# What there is, and where. Type checkers and editors run these lines; Python reads them as a table, below.
if TYPE_CHECKING:
    from .antipure import antipure, antipure_loss, antipure_steps
    from .checkpoints import known_checkpoints, load_ddpm, load_stable_diffusion
    from .customize import FULL_SIZE, dreambooth, dreambooth_steps, lora, lora_steps, save_lora
    from .data import data_path, identities, load_faces
    from .devices import pick_device, pick_dtype
    from .diffusion import (
        add_noise,
        alpha_bars,
        channels_last,
        frozen,
        predict,
        predict_eps,
        predict_x0,
        reverse_step,
        sample_size,
    )
    from .end_to_end import end_to_end_loss, end_to_end_steps, purify_chain, respaced
    from .figures import show_grid, show_iterations, show_means, show_pareto
    from .freqpure import freqpure, freqpure_steps, keep_low_frequencies
    from .generate import generate
    from .guided_diffusion import load_guided_diffusion
    from .images import (
        atomic,
        check_image,
        from_model,
        from_pil,
        load_image,
        quantise,
        quantise_within,
        save_image,
        to_model,
        to_pil,
    )
    from .inspection import compare_photos, radial_spectrum, show_comparison
    from .intervals import bootstrap_interval, holm, paired_test
    from .judge import Judge
    from .latent_attacks import advdm_steps, checkerboard, mist_steps, photoguard_steps
    from .losses import (
        dct_matrix,
        denoising_loss,
        erroneous_timestep_guidance,
        patch_dct,
        patch_frequency_guidance,
    )
    from .lpips import LPIPS
    from .memory import MemoryPlan, free_memory, memory_plan
    from .noise import image_generators, randint, randn
    from .panel import photo_panel
    from .pgd import PGDState, fast, halving, pgd
    from .photos import Photo, at_least, kept_by_jpeg, read_photo, save_photo
    from .protect import PROTECTIONS, protect, protect_steps, random_steps
    from .purifiers import PURIFIERS, parse_purifier, purify
    from .purify import (
        PurifyState,
        diffpure,
        gaussian_blur,
        gridpure,
        gridpure_steps,
        jpeg,
        purify_tiles,
        resize_and_back,
        survival,
    )
    from .restorer import waifu2x
    from .results import read_rows
    from .set_judges import alexnet_features, brisque, frechet, frechet_distance
    from .show import COLOURS, STYLES, amplify, scrub, show_curves, show_maps, show_rows, table, to_png
    from .surrogate_attacks import aspl_steps, fsmg_steps, greedy_timesteps, simac_steps
    from .tables import by_person, comparable, comparison, interval_of, result_table, select
    from .tiles import extract, merge, tile_count, tile_origins

_MODULE_OF = {
    alias.name: node.module
    for node in ast.walk(ast.parse(__loader__.get_source(__name__)))
    if isinstance(node, ast.ImportFrom) and node.level == 1
    for alias in node.names
}
__all__ = list(_MODULE_OF)


def __getattr__(name: str) -> object:  # called for names that aren't here yet (PEP 562)
    if name not in _MODULE_OF:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    value = getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Python sets `antipure_lib.pgd` to the module as soon as that is imported; the function is meant."""

    def __setattr__(self, name, value):
        if name not in _MODULE_OF or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
