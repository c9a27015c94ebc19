"""tools/models/loop.py: the loop by which the small models were trained."""

import copy

import pytest
import torch

from tools.models.loop import fit, learning_rate


class Stopped(Exception):
    pass


def train(run, stop_before=None, **options):
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
    options = dict(steps=6, warmup=2, checkpoint_every=2) | options
    fit(run, models, {"model": averaged}, loss, lr=0.1, **options)
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


def test_a_checkpoint_is_written_when_the_time_is_up(tmp_path):
    unbroken = train(tmp_path / "a")
    with pytest.raises(Stopped):
        train(tmp_path / "b", stop_before=5, checkpoint_every=100, checkpoint_seconds=-1)
    assert torch.load(tmp_path / "b/state.pt", weights_only=True)["step"] == 5
    resumed = train(tmp_path / "b", stop_before=4, checkpoint_every=100)  # steps 0 to 4 aren't done again
    assert all(torch.equal(unbroken[name], value) for name, value in resumed.items())
    losses = [line.split(",") for line in (tmp_path / "a/loss.csv").read_text().splitlines()]
    (_, mean, _) = (tmp_path / "b/loss.csv").read_text().split(",")  # one line over all six steps
    assert float(mean) == pytest.approx(sum(float(value) for _, value, _ in losses) / 3, abs=2e-6)


def test_a_run_is_prolonged_as_if_it_had_been_that_long_from_the_beginning(tmp_path):
    unbroken = train(tmp_path / "a", steps=9, decay_last=3)
    with pytest.raises(Stopped):
        train(tmp_path / "b", stop_before=5, steps=7, decay_last=3)
    prolonged = train(tmp_path / "b", steps=9, decay_last=3)
    assert all(torch.equal(unbroken[name], value) for name, value in prolonged.items())


def test_the_learning_rate_rises_stays_and_falls():
    rate = [learning_rate(step, 20, 4, 5) for step in range(20)]
    assert rate[:4] == [0.25, 0.5, 0.75, 1] and rate[3:16] == [1] * 13
    fall = (1 + torch.tensor([1, 2, 3, 4]).mul(torch.pi / 5).cos()) / 2
    assert rate[16:] == pytest.approx(fall.tolist())


def test_a_checkpoint_between_two_lines_of_the_log_is_small(tmp_path):
    model = torch.nn.Linear(1, 1)

    def loss(step, generator):
        if step == 3:
            raise Stopped
        return torch.nn.functional.mse_loss(model(torch.ones(100_000, 1)), torch.zeros(100_000, 1))

    with pytest.raises(Stopped):
        fit(tmp_path, {"m": model}, {"m": copy.deepcopy(model)}, loss, 4, lr=0.1, checkpoint_seconds=-1)
    assert len(torch.load(tmp_path / "state.pt", weights_only=True)["recent"]) == 3
    assert (tmp_path / "state.pt").stat().st_size < 50_000
