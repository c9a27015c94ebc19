"""tools/models/loop.py: the loop by which the small models were trained."""

import copy

import pytest
import torch

from tools.models.loop import fit


class Stopped(Exception):
    pass


def train(run, stop_before=None):
    """Two weights that learn a noisy target; the averaged ones are returned."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 2)
    averaged = copy.deepcopy(model)

    def loss(step, generator):
        if step == stop_before:
            raise Stopped
        x = torch.randn((8, 3), generator=generator)
        return (model(x) - x[:, :2]).square().mean()

    models = {"model": model}
    fit(run, models, {"model": averaged}, loss, steps=6, lr=0.1, warmup=2, checkpoint_every=2, bf16=False)
    return averaged.state_dict()


def test_a_stopped_training_goes_on_to_the_same_weights(tmp_path):
    unbroken = train(tmp_path / "a")
    with pytest.raises(Stopped):
        train(tmp_path / "b", stop_before=5)
    resumed = train(tmp_path / "b")
    assert all(torch.equal(unbroken[name], value) for name, value in resumed.items())
    finished = train(tmp_path / "b", stop_before=0)  # nothing is left to do
    assert all(torch.equal(unbroken[name], value) for name, value in finished.items())
    assert [path.name for path in sorted((tmp_path / "b").iterdir())] == ["loss.csv", "state.pt"]
