"""tools/study/equal_effect.py: the step sizes that it compares."""

import pytest

from tools.study.equal_effect import halving


def test_halving_follows_the_checkpoints_of_apgd():
    # Croce & Hein's checkpoints for 100 iterations, as their formula gives them.
    checkpoints = [22, 41, 57, 70, 80, 87, 93, 99]
    expected = [0.5 / 2 ** sum(w <= step for w in checkpoints) for step in range(100)]
    assert halving(0.25, 100) == pytest.approx(expected)
    assert halving(0.25, 1) == [0.5]
