"""The table of situations as a page."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from .registry import KINDS, Result, Situation

OUT = Path(__file__).resolve().parents[2] / "docs" / "compatibility.md"
HEAD = """# Situations from other projects' bug reports

Each row is something that users of this field have reported, or a variation of it, tried on this library by
`python -m tests.compatibility`. A number is that project's issue on GitHub; "own" are variations thought out
here. Rows in *italics* are slow: `--fast` leaves them out. The
tests in `tests/` try further variations.

Results: **fine**, as users expect; **refused**, with this message; **fault**, with what is wrong.
"""


def write(path: Path, results: Mapping[Situation, Result]) -> None:
    """Write the page, kind by kind."""
    counts = Counter(result.outcome for result in results.values())
    sources = {found.source for found in results} - {"own"}
    lines = [HEAD, f"{len(results)} situations from {len(sources)} reports and our own variations: "]
    lines[-1] += ", ".join(f"{counts[outcome]} {outcome}" for outcome in ("fine", "refused", "fault")) + "."
    for kind, expected in KINDS.items():
        rows = {found: result for found, result in results.items() if found.kind == kind}
        if not rows:
            continue
        lines += ["", f"## {kind[0].upper()}{kind[1:]}", "", f"Expected: {expected}.", ""]
        lines += ["| situation | source | result |", "| --- | --- | --- |"]
        for found, result in rows.items():
            told = f"**{result.outcome}**" + (f": {result.message}" if result.message else "")
            lines.append(f"{beginning(found)} {told} |")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def beginning(found: Situation) -> str:
    """A row of the page up to its result."""
    text = found.text.replace("|", "\\|")
    return f"| {text if found.fast else f'*{text}*'} | {found.source} |"
