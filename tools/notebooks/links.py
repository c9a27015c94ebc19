"""Links in Markdown to files of the repository."""

import re
from collections.abc import Callable
from pathlib import Path

from tools.notebooks.stamp import repository

LINK = re.compile(r"(?<=\]\()([^)\s#:]+)(?=[)\s#])")  # the file in a Markdown link; no URL, no anchor
PICTURES = (".png", ".svg", ".jpg")


def relinked(text: str, folder: Path, root: Path, stays: Callable[[Path], bool]) -> str:
    """Markdown whose links to files of a repository are web addresses, except to files that stay.

    folder: where the text's links start. root: the repository's folder. A link to no file there is kept.
    """

    def relink(match: re.Match) -> str:
        target = (folder / match[0]).resolve()
        if not target.is_relative_to(root) or not target.exists() or stays(target):
            return match[0]
        raw = "?raw=true" if target.suffix in PICTURES else ""
        return f"{repository()}/blob/main/{target.relative_to(root).as_posix()}{raw}"

    return LINK.sub(relink, text)
