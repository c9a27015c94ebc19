"""The situations that take little time, tried as tests; and the page, which must list all of them."""

import pytest

from .registry import SITUATIONS, attempt
from .table import OUT, beginning

LONG = ("adapters", "causes", "layouts", "panel", "schedulers", "shared model")  # a minute in all
QUICK = [name for name, found in SITUATIONS.items() if found.fast and found.kind not in LONG]


@pytest.mark.parametrize("name", QUICK)
def test_users_get_what_they_expect(name):
    result = attempt(SITUATIONS[name])
    assert result.outcome != "fault", result.message


def test_the_page_lists_every_situation_and_no_fault():
    rows = [line for line in OUT.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    for found in SITUATIONS.values():
        of_it = [row for row in rows if row.startswith(beginning(found))]
        assert of_it, f"{found.name} isn't in {OUT.name}; run python -m tests.compatibility"
        assert not any(row.startswith(f"{beginning(found)} **fault**") for row in of_it), of_it
    heads = sum(row.startswith(("| situation", "| ---")) for row in rows)
    assert len(rows) == len(SITUATIONS) + heads, f"{OUT.name} has rows of other situations; run it again"
