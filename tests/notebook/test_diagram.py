"""The drawings without data."""

import pytest

pytest.importorskip("matplotlib.pyplot")
from matplotlib.patches import FancyBboxPatch

from antipure_lib import show_pgd_step, show_workflow
from antipure_lib.notebook.diagram import STAGES


def test_the_workflow_fills_the_named_stages_alone():
    axis = show_workflow("purify", "judge").axes[0]
    boxes = [patch for patch in axis.patches if isinstance(patch, FancyBboxPatch)]
    filled = [box.get_facecolor()[:3] != (1, 1, 1) for box in boxes]
    assert [stage for stage, here in zip(STAGES, filled, strict=True) if here] == ["purify", "judge"]


def test_an_unknown_stage_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown stage post; the stages are photo, protect"):
        show_workflow("post")


def test_the_pgd_step_ends_on_the_budgets_edge():
    x, y = (values[0] for values in show_pgd_step().axes[0].lines[-1].get_data())
    assert max(abs(x), abs(y)) == 1
