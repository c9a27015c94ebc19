"""What chapter 00 ships: photos within the budget, and pass rates of every set."""

import json

import pytest
from PIL import Image

from antipure_lib import data_path, load_faces
from tools.study.start import ETA, METHODS, PERSON, SAMPLES, TITLES, stored


@pytest.mark.parametrize("name", METHODS)
def test_shipped_photos_are_within_the_budget(name):
    x, posted = load_faces(PERSON, "B"), stored(name, "posted")
    change = (posted - x).abs().flatten(1).amax(1)
    assert (change <= ETA + 1e-6).all() and (change > 0.5 * ETA).all()


@pytest.mark.parametrize("name", METHODS)
def test_purification_brings_photos_closer_to_the_clean_ones(name):
    x = load_faces(PERSON, "B")
    apart = [(stored(name, stage) - x).flatten(1).norm(dim=1) for stage in ("posted", "purified")]
    assert (apart[1] < apart[0]).all() and (apart[1] > 0).all()


def test_every_set_has_a_pass_rate_that_its_images_can_have():
    rates = json.loads(data_path("start", "rates.json").read_text())
    stages = ("posted", "purified")
    assert set(rates) == {f"{title}, {stage}" for title in TITLES.values() for stage in stages}
    assert all(0 <= rate <= 1 and (rate * SAMPLES).is_integer() for rate in rates.values())


def test_the_picture_opens():
    with Image.open(data_path("start", "faces.png")) as picture:
        assert picture.width > 2 * picture.height
