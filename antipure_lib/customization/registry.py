"""Every customization by its name."""

from .dreambooth import dreambooth, dreambooth_steps
from .lora import lora, lora_steps

CUSTOMIZERS = {"dreambooth": dreambooth, "lora": lora}

CUSTOMIZER_STEPS = {"dreambooth": dreambooth_steps, "lora": lora_steps}  # with their defaults
