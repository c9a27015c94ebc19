"""Protective perturbations against diffusion purification, small enough to read."""

from .antipure import antipure, antipure_loss, antipure_steps
from .checkpoints import load_ddpm, load_stable_diffusion
from .data import data_path, identities, load_faces
from .devices import pick_device, pick_dtype
from .diffusion import add_noise, alpha_bars, frozen, predict, predict_eps, predict_x0, reverse_step, sample_size
from .images import check_image, from_model, load_image, quantise, quantise_within, save_image, to_model
from .losses import (
    dct_matrix,
    denoising_loss,
    erroneous_timestep_guidance,
    patch_dct,
    patch_frequency_guidance,
)
from .noise import image_generators, randint, randn
from .pgd import PGDState, pgd
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
from .tiles import extract, merge, tile_count, tile_origins

__version__ = "0.1.0"
