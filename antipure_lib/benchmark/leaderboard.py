"""A tournament's ranks as one page that needs no other file."""

import base64
import os
from collections.abc import Mapping, Sequence
from html import escape

import torch

from ..notebook.show import show_rows, to_png
from ..photos.pictures import atomic
from .tables import protection_name, purifier_name
from .tournament import Match, standings

STYLE = """body { font: 16px/1.5 sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse }
th, td { padding: .3em .8em; border-bottom: 1px solid #ccc; text-align: left }
img { max-width: 100%; image-rendering: pixelated }"""


def show_contest(matches: Sequence[Match]):
    """One generated face per protection (rows, best first) and purifier (columns). Returns the figure."""
    ranks = standings(matches, {})
    names = {
        kind: [row["name"] for row in ranks if row["kind"] == kind] for kind in ("protection", "purifier")
    }
    faces = {
        (protection_name(match.protection), purifier_name(match.purifier)): match.image
        for match in reversed(matches)
    }
    nothing = torch.ones_like(matches[0].image)
    rows = {
        p: torch.stack([faces.get((p, q), nothing) for q in names["purifier"]]) for p in names["protection"]
    }
    return show_rows(rows, scale=1.3, column_titles=names["purifier"], title="What LoRA learned")


def write_leaderboard(path: str | os.PathLike, matches: Sequence[Match], problems: Mapping[str, str]) -> None:
    """Write the ranks and the picture of the generated faces into one HTML file."""
    rows = standings(matches, problems)
    lines = ["".join(f"<th>{escape(name)}</th>" for name in rows[0])]
    lines += ["".join(f"<td>{_text(value)}</td>" for value in row.values()) for row in rows]
    picture = base64.b64encode(to_png(show_contest(matches))).decode()
    people = ", ".join(dict.fromkeys(match.person for match in matches))
    page = f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>Tournament</title>
<style>{STYLE}</style>
<h1>Tournament</h1>
<p>People: {people}. A protection's score is the pass rate after the purifier that serves the abuser best:
small is good. A purifier's is its mean pass rate: large is good.</p>
<table><tr>{"</tr><tr>".join(lines)}</tr></table>
<p><img alt="generated faces by protection and purifier" src="data:image/png;base64,{picture}"></p></html>"""
    with atomic(path) as part:
        part.write_text(page, encoding="utf-8")


def _text(value: object) -> str:
    if isinstance(value, float):
        return "–" if value != value else f"{value:.3f}"
    return escape(str(value))
