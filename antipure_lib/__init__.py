"""AntiPure in small pieces: protect photos, purify them, customize a model on them, judge what comes out."""

# ruff: noqa: F401  (everything here is re-exported)

from .antipure import antipure, antipure_loss, antipure_steps
from .checkpoints import known_checkpoints, load_ddpm, load_stable_diffusion
from .customize import FULL_SIZE, dreambooth, dreambooth_steps, lora, lora_steps, save_lora
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
from .end_to_end import end_to_end_loss, end_to_end_steps, purify_chain, respaced
from .figures import show_grid, show_iterations, show_pareto
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
from .pgd import PGDState, pgd
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
from .set_judges import alexnet_features, brisque, frechet, frechet_distance
from .show import COLOURS, amplify, scrub, show_curves, show_maps, show_rows, table, to_png
from .surrogate_attacks import aspl_steps, fsmg_steps, greedy_timesteps, simac_steps
from .tables import by_person, comparison, interval_of, result_table, select
from .tiles import extract, merge, tile_count, tile_origins
