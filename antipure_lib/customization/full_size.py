"""Settings of the customizations for Stable Diffusion 1.5 at 512 px: those of diffusers' own examples.

(examples/dreambooth/README.md in its repository.) The functions' own defaults suit the small model.

>>> lora(pipe, photos, dtype=torch.float16, **FULL_SIZE["lora"])
"""

from .lora import ATTENTION

_BOTH = {"decay": False, "batch": 1, "snr_gamma": None, "gradient_checkpointing": True}
FULL_SIZE = {
    "dreambooth": {"steps": 800, "lr": 5e-6, "n_prior": 200, "text_lr": 0, "warmup": 0} | _BOTH,
    "lora": {"steps": 500, "lr": 1e-4, "rank": 4, "layers": ATTENTION} | _BOTH,
}
