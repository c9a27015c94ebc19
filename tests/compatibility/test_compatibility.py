"""The fast half of docs/compatibility.md: every row still comes out as the page says."""

import pytest

from tests.compatibility.registry import SITUATIONS, attempt
from tests.compatibility.table import OUT, read

FAST = [found for found in SITUATIONS.values() if found.fast]


@pytest.fixture(scope="module")
def page():
    return read()


@pytest.mark.parametrize("found", FAST, ids=lambda found: found.name)
def test_comes_out_as_the_page_says(found, page):
    assert found.text in page, f"{OUT.name} lacks it; run python -m tests.compatibility"
    result = attempt(found)
    assert result.outcome == page[found.text], result.message


def test_every_row_is_a_situation(page):
    assert set(page) <= {found.text for found in SITUATIONS.values()}
