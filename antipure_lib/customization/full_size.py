"""Settings of the customizations for Stable Diffusion 1.5."""

from .lora import ATTENTION

# For Stable Diffusion 1.5 at 512 px, the values of diffusers' own examples (examples/dreambooth/README.md in
# its repository): `lora(pipe, photos, dtype=torch.float16, **FULL_SIZE["lora"])`. The functions' own defaults
# suit the small model that comes with this package.
FULL_SIZE = {
    "dreambooth": {
        "steps": 800,
        "lr": 5e-6,
        "decay": False,
        "n_prior": 200,
        "text_lr": 0,
        "batch": 1,
        "snr_gamma": None,
        "warmup": 0,
        "gradient_checkpointing": True,
    },
    "lora": {
        "steps": 500,
        "lr": 1e-4,
        "decay": False,
        "rank": 4,
        "layers": ATTENTION,
        "batch": 1,
        "snr_gamma": None,
        "gradient_checkpointing": True,
    },
}
