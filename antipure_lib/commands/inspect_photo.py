"""`python -m antipure_lib inspect`: what a protection did to a photo, in figures and in a picture."""

import argparse
import os
from typing import Any

from .options import add_parser, path


def add_command(subparsers: Any) -> None:
    """Add `inspect` to the command line's parser."""
    summary = "how visible a protection is: amplified change, spectrum, LPIPS, FLIP, PSNR"
    add = add_parser(subparsers, "inspect", summary, "", run=_run)
    add("original", type=path, metavar="ORIGINAL")
    add("protected", type=path, metavar="PROTECTED")
    add("--out", required=True, type=path, metavar="PNG", help="the picture, such as report.png")


def _run(args: argparse.Namespace) -> int:
    if args.out.suffix.lower() != ".png":
        raise ValueError(f"--out {args.out}: the report is a .png file")
    if os.path.realpath(args.out) in map(os.path.realpath, (args.original, args.protected)):
        raise ValueError(f"--out {args.out} would overwrite a photo; name another file")

    import matplotlib

    from ..judges.perturbation import compare_photos
    from ..notebook.comparison import show_comparison, with_unit
    from ..notebook.show import to_png
    from ..photos.photo import read_photo
    from ..photos.pictures import atomic

    x, x_protected = (read_photo(photo).x for photo in (args.original, args.protected))
    figures = compare_photos(x, x_protected)
    for name, value in figures.items():
        print(f"{name:15}", with_unit(name, value))
    with matplotlib.rc_context(), atomic(args.out) as temporary:
        matplotlib.use("agg")  # no window, with or without a screen
        temporary.write_bytes(to_png(show_comparison(x, x_protected, figures)))
    print(f"report: {args.out}")
    return 0
