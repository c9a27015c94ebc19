"""Every public name of antipure_lib, wing by wing."""

# ruff: isort: skip_file

# core: the paper
from .core.diffusion import (
    add_noise as add_noise,
    alpha_bars as alpha_bars,
    predict as predict,
    predict_eps as predict_eps,
    predict_x0 as predict_x0,
    reverse_step as reverse_step,
)
from .core.guidance import (
    dct_matrix as dct_matrix,
    denoising_loss as denoising_loss,
    erroneous_timestep_guidance as erroneous_timestep_guidance,
    patch_dct as patch_dct,
    patch_frequency_guidance as patch_frequency_guidance,
)
from .core.pgd import PGDState as PGDState, fast as fast, pgd as pgd
from .core.antipure import (
    antipure as antipure,
    antipure_loss as antipure_loss,
    antipure_steps as antipure_steps,
)
from .core.tiles import (
    at_least as at_least,
    extract as extract,
    merge as merge,
    tile_count as tile_count,
    tile_origins as tile_origins,
)
from .core.images import (
    from_model as from_model,
    from_pil as from_pil,
    quantise as quantise,
    quantise_within as quantise_within,
    to_model as to_model,
    to_pil as to_pil,
)

# protections: its rivals, and every protection by name
from .protections.advdm import advdm_steps as advdm_steps
from .protections.anti_dreambooth import aspl_steps as aspl_steps
from .protections.controls import random_steps as random_steps
from .protections.diagnose import diagnose as diagnose
from .protections.end_to_end import end_to_end_loss as end_to_end_loss, end_to_end_steps as end_to_end_steps
from .protections.mist import checkerboard as checkerboard, mist_steps as mist_steps
from .protections.photoguard import photoguard_steps as photoguard_steps
from .protections.registry import (
    PROTECTIONS as PROTECTIONS,
    protect as protect,
    protect_steps as protect_steps,
)
from .protections.simac import greedy_timesteps as greedy_timesteps, simac_steps as simac_steps

# purifiers: what an abuser does first
from .purifiers.chain import purify_chain as purify_chain, respaced as respaced
from .purifiers.diffpure import diffpure as diffpure
from .purifiers.gridpure import gridpure as gridpure, gridpure_steps as gridpure_steps
from .purifiers.filters import (
    gaussian_blur as gaussian_blur,
    jpeg as jpeg,
    resize_and_back as resize_and_back,
)
from .purifiers.freqpure import (
    freqpure as freqpure,
    keep_low_frequencies as keep_low_frequencies,
)
from .purifiers.registry import PURIFIERS as PURIFIERS, purify as purify
from .purifiers.waifu2x import waifu2x as waifu2x

# customization: what an abuser does then
from .customization.dreambooth import dreambooth as dreambooth, dreambooth_steps as dreambooth_steps
from .customization.full_size import FULL_SIZE as FULL_SIZE
from .customization.generate import generate as generate
from .customization.lora import lora as lora, lora_steps as lora_steps, save_lora as save_lora

# judges: who is it, how visible, what is left
from .judges.brisque import brisque as brisque
from .judges.faces import Judge as Judge
from .judges.frechet import frechet as frechet
from .judges.perturbation import radial_spectrum as radial_spectrum, survival as survival

# models: checkpoints, and the embedded small ones
from .models.checkpoints import (
    known_checkpoints as known_checkpoints,
    load_ddpm as load_ddpm,
    load_stable_diffusion as load_stable_diffusion,
)
from .models.embedded import data_path as data_path, identities as identities, load_faces as load_faces

# photos: picture files
from .photos.photo import Photo as Photo, read_photo as read_photo, save_photo as save_photo
from .photos.pictures import load_image as load_image, save_image as save_image

# notebook: what cells call
from .notebook.diagram import show_pgd_step as show_pgd_step, show_workflow as show_workflow
from .notebook.panel import photo_panel as photo_panel
from .notebook.show import (
    COLOURS as COLOURS,
    STYLES as STYLES,
    amplify as amplify,
    scrub as scrub,
    show_curves as show_curves,
    show_maps as show_maps,
    show_rows as show_rows,
    table as table,
    to_png as to_png,
)

# benchmark: the workflow, measured
from .benchmark.rows import read_rows as read_rows

# runtime: how things run
from .runtime.devices import pick_device as pick_device, pick_dtype as pick_dtype
from .runtime.memory import free_memory as free_memory, memory_plan as memory_plan
from .runtime.noise import image_generators as image_generators, randint as randint, randn as randn
from .runtime.unet import sample_size as sample_size, view as view
