"""README's table of pass rates, from the study."""

from antipure_lib.benchmark.intervals import Interval
from antipure_lib.benchmark.rows import read_rows
from antipure_lib.benchmark.study import CHAIN, PAPER
from antipure_lib.benchmark.tables import Rows, interval_of, protection_name, purifier_name, select
from antipure_lib.models.embedded import data_path
from antipure_lib.notebook.show import table
from tools.notebooks.stamp import between_marks

SHOWN = [*PAPER, "end-to-end", "workflow"]


def with_interval(rate: Interval) -> str:
    """A pass rate and its interval, cut at 0 and 100; a rate that is the same for all people has none."""
    low, high = max(rate.low, 0), min(rate.high, 1)
    mean = f"{100 * rate.mean:.0f} %"
    return mean if low == high else f"{mean} ({100 * low:.0f}–{100 * high:.0f})"


def results_table(rows: Rows) -> str:
    """Pass rate as posted and purified, and LPIPS, of LoRA's rows with seed 0; in Markdown."""
    lines = []
    for name in SHOWN:
        posted, purified = (
            select(rows, protect=name, purify=purify, customize="lora", seed=0) for purify in ("none", CHAIN)
        )
        if posted and purified:
            line = {"learned from": protection_name(name)}
            line["photos as posted"] = with_interval(interval_of(posted, "same_person"))
            line[f"purified, {purifier_name(CHAIN)}"] = with_interval(interval_of(purified, "same_person"))
            lines.append(line | {"LPIPS of the photos": interval_of(posted, "lpips").mean})
    return table(lines) + "\n"


def with_results(readme: str) -> str:
    """README's text with a fresh table of results between its two marks."""
    return between_marks(readme, "results", results_table(read_rows(data_path("results", "study.csv"))))
