"""Which device to run on, and in which precision. Chosen once, then passed along."""

import torch


def pick_device(device: str | torch.device | None = None) -> torch.device:
    """The device asked for, or the best one there is: CUDA, then MPS, then the CPU.

    device: "cpu", "cuda", "cuda:1", "mps", a `torch.device`, or None to choose.
    Raises ValueError for a device that this machine or this build of torch doesn't have.
    """
    if device is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    device = torch.device(device)
    if device.type == "cuda" and torch.cuda.device_count() <= (device.index or 0):
        raise ValueError(f"device '{device}' isn't available here; use device='cpu' or device=None")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device 'mps' isn't available here; use device='cpu' or device=None")
    return device


def pick_dtype(device: str | torch.device) -> torch.dtype:
    """The fastest precision that the device computes natively.

    CUDA with compute capability 8 or more: bfloat16. Older CUDA cards (a T4 claims bfloat16 but emulates it):
    float16. A CPU with instructions for it (AVX-512 BF16, AMX): bfloat16. MPS and other CPUs: float32.
    """
    device = torch.device(device)
    if device.type == "cpu":
        found = getattr(torch.cpu, "get_capabilities", dict)()  # an older torch can't tell
        return torch.bfloat16 if found.get("avx512_bf16") or found.get("amx_bf16") else torch.float32
    if device.type != "cuda":
        return torch.float32
    major, _ = torch.cuda.get_device_capability(device)
    return torch.bfloat16 if major >= 8 else torch.float16
