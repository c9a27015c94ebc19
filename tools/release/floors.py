"""Print the oldest versions that pyproject.toml allows of what the library needs, as pip's constraints.

    python -m tools.release.floors > constraints.txt    # `make floors` installs them and runs the tests

Extras are left out: they are not needed together, and some of their oldest versions don't go together.
"""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"


def oldest(requirement: str) -> str:
    """`name==floor` for `name>=floor`. Raises ValueError for any other kind of bound."""
    parsed = Requirement(requirement)
    bound, *others = [*parsed.specifier] or [None]
    if others or bound is None or bound.operator != ">=":
        raise ValueError(f"pyproject.toml: '{requirement}' has no floor; write it as name>=version")
    return f"{parsed.name}=={bound.version}"


if __name__ == "__main__":
    for line in tomllib.loads(PYPROJECT.read_text())["project"]["dependencies"]:
        print(oldest(line))
