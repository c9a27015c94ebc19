"""Draw README's picture: clean, protected, and what changed.

python -m tools.release.readme_picture docs/protect.png
"""

import argparse
from pathlib import Path

import antipure_lib as ap
from antipure_lib.photos.pictures import atomic


def main(out: Path, eta: float = 8 / 255, steps: int = 60) -> None:
    x = ap.load_faces("p07", "B")
    protected = ap.antipure(ap.load_ddpm(), x, eta=eta, steps=steps)
    times = round(0.5 / eta)
    rows = {"clean": x, "protected": protected, f"change × {times}": ap.amplify(protected, x, times)}
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic(out) as temporary:
        ap.show_rows(rows, scale=1.4).savefig(temporary, dpi=100, format="png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    main(parser.parse_args().out)
