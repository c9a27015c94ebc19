"""The report of bench.py: what was measured, on what, as Markdown and as JSON."""

import json
import math
import platform
import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch

from antipure_lib.photos.pictures import atomic

PARTS = {
    "bare": (
        "Over the work that can't be avoided",
        "A step of ours / the UNet's passes that it needs, alone, on the same batch in the same precision. "
        'A plain sum needs one forward and one backward pass of (x_t, t) and (x_t, t_err); `balance="equal"` '
        "needs each term's own gradient: two forward passes, three backward passes of the first, one of the "
        "second. GrIDPure needs t forward passes of all tiles; on a CPU with weights in channels-last "
        "order, as ours has them.",
        ("ours", "bare"),
    ),
    "published": (
        "Loops as they are published, over ours",
        "On the same weights, in float32: PGD with gradients of parameters and a UNet call a timestep; "
        "GrIDPure tile by tile, through an 8-bit image after every iteration.",
        ("theirs", "ours"),
    ),
    "means": (
        "What each means brings",
        "Time without it / with it. Below 1 it costs. Freed memory kept or not: in processes of their own, "
        "by turns. Weights are in channels-last order on a CPU where no "
        "gradients are taken, that is in purification. `torch.compile` is one line, `ddpm.unet.compile()`; "
        '`balance="equal"` then also needs '
        "`torch._functorch.config.donated_buffer = False`, since its backward passes share a graph.",
        ("without", "with"),
    ),
    "shares": (
        "What is left beside the networks",
        "A part of an AntiPure step (plain sum) / the whole step: what drawing the noise beforehand, or a "
        "projection without copies, could save at most.",
        ("part", "step"),
    ),
    "training": (
        "Customization",
        "A step / its forward and backward pass: what remains is AdamW, clipping the gradients and noise.",
        ("ours", "bare"),
    ),
    "growth": (
        "Growth",
        "Time per tile / time per tile of one 64 px photo (of ten tiles; one of 128 px has 50): 1 is linear "
        "growth. Memory on a CPU is the whole process's.",
        ("ours", "first"),
    ),
    "start": (
        "From the start of a process",
        "Over one that imports torch and diffusers alone. The first protected image: load the purifier and a "
        "face, 20 steps of AntiPure, save.",
        ("ours", "torch, diffusers"),
    ),
}


CPU_ALONE = ("start", "allocator")  # groups of what no GPU has


def write_report(folder: Path, group: str, device: str, rows: Sequence[dict]) -> None:
    """Write what a device has done so far in one group into a folder's speed.json and speed.md, each whole.

    What the file holds of the device's other groups stays if it was measured on a machine and with packages
    like these; what it holds of another device stays anyway, with the facts of the machine that had it.
    rows: as of bench.Row, with their group.
    """
    file, known = folder / "speed.json", machine(device)
    before = json.loads(file.read_text()) if file.exists() else {"facts": {}, "rows": []}
    same = before["facts"].get(device) == known
    facts = before["facts"] | {device: known}
    kept = [row for row in before["rows"] if row["device"] != device or (same and row["group"] != group)]
    rows = sorted(kept + [tidy(row) for row in rows], key=lambda row: list(facts).index(row["device"]))
    with atomic(file) as temporary:
        temporary.write_text(json.dumps({"facts": facts, "rows": rows}, indent=1) + "\n")
    with atomic(folder / "speed.md") as temporary:
        temporary.write_text(markdown(facts, rows), encoding="utf-8")


def machine(device: str) -> dict[str, object]:
    """What a device's figures depend on, and nothing that names this machine."""
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else None
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    native = [name for name in ("avx512_bf16", "amx_bf16") if capabilities.get(name)]
    facts = {
        "processor": found[1] if found else platform.machine(),
        "threads": torch.get_num_threads(),
        "bfloat16": ", ".join(native) or "none",
    }
    if device == "cuda":
        facts = {"GPU": torch.cuda.get_device_name()}
    facts["Python"] = platform.python_version()
    return facts | {name: version(name) for name in ("torch", "diffusers", "transformers")}


def markdown(facts: dict[str, dict[str, object]], rows: Sequence[dict]) -> str:
    """The report as text; facts: of each device."""
    lines = [
        "# Speed",
        "",
        "Written by `make bench` (`python -m tools.speed.bench`). "
        "What is compared runs in one process by turns; a ratio is the median over neighbours, with the "
        "lowest and the highest.",
    ]
    for device, known in facts.items():
        lines += ["", f"{device}: " + "; ".join(f"{name} {value}" for name, value in known.items()) + "."]
    for part, (title, text, columns) in PARTS.items():
        of_part = [row for row in rows if row["part"] == part]
        if not of_part:
            continue
        lines += ["", f"## {title}", "", text, ""]
        lines += [f"| what | model | where | ratio | target | s, {columns[0]} | s, {columns[1]} | |"]
        lines += ["|---|---|---|---|---|---|---|---|"]
        lines += [line(row) for row in of_part]
    lines += [*useless(rows), *without_gpu(rows)]
    return "\n".join(lines) + "\n"


def without_gpu(rows: Sequence[dict]) -> list[str]:
    """How a GPU's rows are to be read, and what has a figure for the CPU and none for a GPU, as a section."""
    there = [row for row in rows if row["device"] == "cuda"]
    if not there:
        text = "Not measured: there was none. `make bench` on a machine with one adds its rows."
        return ["", "## GPU", "", text]
    precisions = ", ".join(sorted({row["dtype"].split()[0] for row in there}))
    text = f"Precisions with a figure: {precisions}."
    low = [row for row in there if row["model"] == "nano" and row["what"].startswith("low precision (step")]
    if low and max(row["ratio"] for row in low) < 1.1:
        gains = " and ".join(f"{row['ratio']:.2f} ({row['dtype'].split()[-1]})" for row in low)
        text += f" In a step of the small model 16 bits bring {gains}: starting kernels takes the time, not "
        text += "arithmetic, so every small operation beside the UNet counts there."
    known = {(row["group"], row["what"]) for row in there}
    names = dict.fromkeys(
        f"- {row['group']}: {row['what']}"
        for row in rows
        if row["group"] not in CPU_ALONE and (row["group"], row["what"]) not in known
    )
    return ["", "## GPU", "", text, *(["", "Measured on a CPU alone:", "", *names] if names else [])]


def useless(rows: Sequence[dict]) -> list[str]:
    """The means that saved less than 2 % of the time, as a section."""
    names = [
        f"{row['what']}, {row['device']} {row['dtype']}: {row['ratio']:.2f}."
        for row in rows
        if row["part"] == "means" and row["ratio"] < 1.02
    ]
    found = [f"- {name}" for name in names] or ["Everything above saved 2 % or more."]
    return ["", "## What did not help", "", *found]


def line(row: dict) -> str:
    """One row of a table."""
    ratio = f"**{row['ratio']:.2f}** ({row['low']:.2f}–{row['high']:.2f})"
    where = " ".join(filter(None, (row["device"], row["dtype"])))
    seconds = (f"{row[key]:.3g}" for key in ("seconds_a", "seconds_b"))
    return (
        "| "
        + " | ".join([row["what"], row["model"], where, ratio, target(row), *seconds, row["note"]])
        + " |"
    )


def target(row: dict) -> str:
    """The target and whether the median meets it."""
    if row["at_most"] is not None:
        return f"≤ {row['at_most']:.2f}: {'met' if row['ratio'] <= row['at_most'] else '**missed**'}"
    if row["at_least"] is not None:
        return f"≥ {row['at_least']:.1f}: {'met' if row['ratio'] >= row['at_least'] else '**missed**'}"
    return ""


def tidy(row: dict) -> dict:
    """Four significant digits; JSON has no nan."""
    return {
        key: (float(f"{value:.4g}") if math.isfinite(value) else None) if isinstance(value, float) else value
        for key, value in row.items()
    }
