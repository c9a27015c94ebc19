"""AntiPure in small pieces: protect photos, purify them, customize a model on them, judge what comes out."""

# ruff: noqa: F401  (everything here is re-exported)

from .antipure import antipure, antipure_loss, antipure_steps
from .checkpoints import load_ddpm, load_stable_diffusion
from .customize import dreambooth, dreambooth_steps, lora, lora_steps
from .data import data_path, identities, load_faces
from .devices import pick_device, pick_dtype
from .diffusion import (
    add_noise,
    alpha_bars,
    frozen,
    predict,
    predict_eps,
    predict_x0,
    reverse_step,
    sample_size,
)
from .generate import generate
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
from .judge import Judge
from .losses import (
    dct_matrix,
    denoising_loss,
    erroneous_timestep_guidance,
    patch_dct,
    patch_frequency_guidance,
)
from .lpips import LPIPS
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
from .show import COLOURS, amplify, show_curves, show_rows, table
from .tiles import extract, merge, tile_count, tile_origins
