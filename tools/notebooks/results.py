"""README's table of pass rates, from the study: `python -m tools.notebooks.results` writes it."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from antipure_lib.benchmark.intervals import Interval
from antipure_lib.benchmark.rows import read_rows
from antipure_lib.benchmark.study import CHAIN, PAPER
from antipure_lib.benchmark.tables import Rows, interval_of, protection_name, purifier_name, select
from antipure_lib.models.embedded import data_path
from tools.notebooks.stamp import write_text

TABLE = re.compile(r"(?<=<!-- results, written by `make stamp` -->\n).*?(?=<!-- end -->)", re.DOTALL)
SHOWN = [*PAPER, "end-to-end", "workflow"]


def percent(rate: Interval) -> str:
    """A pass rate and its interval, cut at 0 and 100; a rate that is the same for all people has none."""
    low, high = max(rate.low, 0), min(rate.high, 1)
    mean = f"{100 * rate.mean:.0f} %"
    return mean if low == high else f"{mean} ({100 * low:.0f}–{100 * high:.0f})"


def results_table(rows: Rows) -> str:
    """Pass rate as posted and purified, and LPIPS, of LoRA's rows with seed 0; in Markdown."""
    lines = [f"| learned from | photos as posted | purified, {purifier_name(CHAIN)} | LPIPS of the photos |"]
    lines.append("|---|---|---|---|")
    for name in SHOWN:
        found = [
            select(rows, protect=name, purify=purify, customize="lora", seed=0) for purify in ("none", CHAIN)
        ]
        if all(found):
            lpips = "–" if name == "none" else f"{interval_of(found[0], 'lpips').mean:.3f}"
            rates = " | ".join(percent(interval_of(part, "same_person")) for part in found)
            lines.append(f"| {protection_name(name)} | {rates} | {lpips} |")
    return "\n".join(lines) + "\n"


def with_results(readme: str) -> str:
    """README's text with a fresh table of results between its two marks."""
    return TABLE.sub(lambda _: results_table(read_rows(data_path("results", "study.csv"))), readme)


def main(argv: Sequence[str] = (), readme: Path = Path("README.md")) -> int:
    """Write the table of results and return the exit status."""
    text = readme.read_text(encoding="utf-8")
    if (fresh := with_results(text)) != text:
        write_text(readme, fresh)
        print(f"{readme}: table of results written")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
