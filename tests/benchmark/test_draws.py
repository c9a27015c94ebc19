"""Names of draws and copies."""

import pytest

from antipure_lib.benchmark.draws import Draws, draws_of
from antipure_lib.benchmark.tables import purifier_name


@pytest.mark.parametrize(
    "name, draws, title",
    [
        ("gridpure2x20", Draws("gridpure2x20"), "GrIDPure 2 × 20"),
        ("gridpure2x20@2", Draws("gridpure2x20", 2), "GrIDPure 2 × 20, draw 3"),
        ("jpeg75+diffpure10*3", Draws("jpeg75+diffpure10", 0, 3), "JPEG 75 + DiffPure 10, 3 copies"),
        ("diffpure50@1*2", Draws("diffpure50", 1, 2), "DiffPure 50, draw 2, 2 copies"),
    ],
)
def test_a_name_is_read_and_shown(name, draws, title):
    assert draws_of(name) == draws
    assert purifier_name(name) == title


@pytest.mark.parametrize(
    "name", ["", "@1", "jpeg75@", "jpeg75*0", "jpeg75*2@1", "jpeg75@-1", "jpeg75@1@2", "jpeg75 *2"]
)
def test_another_form_is_refused(name):
    with pytest.raises(ValueError, match="purif"):
        draws_of(name)


def test_the_purifier_must_exist():
    with pytest.raises(ValueError, match="unknown purifier 'bleach'"):
        draws_of("bleach@1")
    assert purifier_name("bleach@1") == "bleach@1"  # in a table of another version
