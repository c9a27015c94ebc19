"""Drawings without data: the workflow with the current stage marked, and one step of PGD."""

import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

from .show import COLOURS

STAGES = {  # what the course calls each stage: what happens there, and who does it
    "photo": ("clean photo x", "you"),
    "protect": ("protect: x + δ", "you"),
    "purify": ("purify", "abuser"),
    "customize": ("customize\na model", "abuser"),
    "generate": ("generate\nimages", "abuser"),
    "judge": ("judge: is it\nthe person?", "we measure"),
}
ACTORS = {"you": COLOURS[0], "abuser": COLOURS[1], "we measure": COLOURS[2]}


def show_workflow(*stages: str):
    """The course's workflow in six boxes; the named stages of STAGES are filled. Returns the figure.

    Raises ValueError for a stage that isn't in STAGES.
    """
    if unknown := set(stages) - set(STAGES):
        raise ValueError(f"unknown stage {', '.join(sorted(unknown))}; the stages are {', '.join(STAGES)}")
    figure, axis = plt.subplots(figsize=(8, 1.35), layout="constrained")
    for k, (stage, (text, actor)) in enumerate(STAGES.items()):
        colour, here = ACTORS[actor], stage in stages
        look = {"boxstyle": "round,pad=0.02", "ec": colour, "lw": 1.8, "fc": colour if here else "white"}
        axis.add_patch(FancyBboxPatch((k, 0), 0.78, 0.6, **look))
        axis.text(
            k + 0.39, 0.3, text, ha="center", va="center", fontsize=9, color="white" if here else "black"
        )
        if k:
            axis.add_patch(
                FancyArrowPatch((k - 0.2, 0.3), (k - 0.02, 0.3), arrowstyle="-|>", mutation_scale=11)
            )
    for actor, colour in ACTORS.items():
        own = [k for k, (_, by) in enumerate(STAGES.values()) if by == actor]
        axis.text((own[0] + own[-1] + 0.78) / 2, 0.72, actor, ha="center", fontsize=9, color=colour)
    axis.set(xlim=(-0.05, len(STAGES) - 0.17), ylim=(-0.06, 0.92))
    axis.axis("off")
    return figure


def show_pgd_step():
    """One step of PGD for two colour values: sign of the gradient, step, clip. Returns the figure."""
    figure, axis = plt.subplots(figsize=(4.6, 4.2), layout="constrained")
    axis.add_patch(Rectangle((-1, -1), 2, 2, fill=False, ec=COLOURS[0], lw=2))
    axis.text(-0.97, -0.93, "budget: ‖δ‖∞ ≤ η", color=COLOURS[0], fontsize=9)
    here, stepped, clipped = (0.55, 0.2), (1.2, 0.85), (1.0, 0.85)
    arrows = (
        (here, (0.95, 0.33), "0.4", "gradient", (0.93, 0.2)),
        (here, stepped, COLOURS[1], "step · sign", (0.46, 0.6)),
        (stepped, clipped, COLOURS[2], "clip", (1.03, 0.93)),
    )
    for start, end, colour, text, place in arrows:
        axis.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", color=colour, mutation_scale=12, lw=1.8))
        axis.text(*place, text, color=colour, fontsize=9)
    points = ((0, 0, "x", "black"), (*here, "x + δ", "black"), (*clipped, "", COLOURS[2]))
    for x, y, text, colour in points:
        axis.plot(x, y, "o", color=colour, ms=5)
        axis.text(x - 0.04, y - 0.13, text, fontsize=10)
    axis.set(xlim=(-1.15, 1.45), ylim=(-1.15, 1.15), aspect="equal")
    axis.set(xlabel="change of one colour value, in η", ylabel="change of another, in η")
    axis.spines[["top", "right"]].set_visible(False)
    return figure
