"""Which device to run on, and in which precision. Chosen once, then passed along."""

import torch


def pick_device(device: str | torch.device | None = None) -> torch.device:
    """The device asked for; None: the best one there is, of CUDA, MPS and the CPU in this order.

    device: such as "cpu", "cuda:1", "mps". Raises ValueError for others, and for a device that isn't here.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if device is None:
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        found = None
    if isinstance(device, bool) or found is None or found.type not in ("cpu", "cuda", "mps"):
        raise ValueError(f"device must be 'cpu', 'cuda', 'cuda:1', 'mps' or None, got {device!r}")
    count = {"cuda": torch.cuda.device_count(), "mps": int(mps)}.get(found.type)
    if count is not None and (found.index or 0) >= count:
        raise ValueError(f"device '{found}' isn't available here; use device='cpu' or device=None")
    return found


def check_dtype(dtype: torch.dtype | None) -> None:
    """Raises ValueError for anything but a floating-point precision to compute with; None passes."""
    if dtype not in (None, torch.float32, torch.bfloat16, torch.float16, torch.float64):
        raise ValueError(f"dtype must be torch.float32, bfloat16, float16, float64 or None, got {dtype!r}")


def pick_dtype(device: str | torch.device) -> torch.dtype:
    """The fastest precision that the device computes natively.

    bfloat16: CUDA from compute capability 8 (a T4 emulates it), CPUs with AMX, AMD's with AVX-512 BF16.
    float16: older CUDA cards. float32: MPS and other CPUs. Intel's with AVX-512 BF16 alone multiply as many
    numbers per cycle in float32 (measured: bfloat16 takes 1.3 to 1.6 times as long).
    """
    device = torch.device(device)
    if device.type == "cpu":
        found = getattr(torch.cpu, "get_capabilities", dict)()  # an older torch has no such function
        vectors = found.get("avx512_bf16") and "Intel" not in str(found.get("cpu_name"))
        return torch.bfloat16 if vectors or found.get("amx_bf16") else torch.float32
    if device.type != "cuda":
        return torch.float32
    major, _ = torch.cuda.get_device_capability(device)
    return torch.bfloat16 if major >= 8 else torch.float16
