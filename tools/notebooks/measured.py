"""The small models' tables in docs/measured.md: `python -m tools.notebooks.measured` writes them.

The figures are those that `python -m tools.study.nano` leaves in data/results and data/faces.
"""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from antipure_lib.models.embedded import data_path
from tools.notebooks.stamp import write_text

MEASURED = Path("docs/measured.md")
TABLE = re.compile(r"(?<=<!-- small models, written by `make stamp` -->\n).*?(?=<!-- end -->)", re.DOTALL)
PURIFIERS = {  # as data/results/nano_purifier.json names them
    "clean": "clean photos",
    "diffpure t=10": "DiffPure, t = 10",
    "diffpure t=50": "DiffPure, t = 50",
    "diffpure t=100": "DiffPure, t = 100",
    "gridpure 20": "GrIDPure, 20 iterations",
    "gridpure 40": "GrIDPure, 2 × 20 iterations",
}
LEARNERS = {"dreambooth": "DreamBooth", "lora": "LoRA"}


def plus_minus(figure: Mapping[str, float], digits: int = 2) -> str:
    """Mean ± standard deviation."""
    return f"{figure['mean']:.{digits}f} ± {figure['sd']:.{digits}f}"


def percent(share: float) -> str:
    """A share in [0, 1] with one digit, which is left out where it is zero."""
    return f"{100 * share:.1f}".removesuffix(".0") + " %"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows of texts in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def networks(judge: Mapping, vae: Mapping, prompts: Mapping) -> str:
    """The judge on rendered people, the autoencoder, and whether samples follow their prompts."""
    renders, size = judge["people"] * judge["photos"], judge["size"]
    hair = ", ".join(f"{colour} {percent(share)}" for colour, share in prompts["hair_by_colour"].items())
    rows = [
        (
            f"faces that dlib finds in {renders} renders of {judge['people']} people, {size} px",
            judge["detected"],
        ),
        ("same person against strangers: area under the ROC curve (AUC)", f"{judge['auc']:.4f}"),
        ("threshold: the distance that 1 % of strangers fall under", f"{judge['threshold']:.3f}"),
        ("pairs of one person's photos under it", judge["tpr"]),
        (f"autoencoder, {vae['photos']} held-out photos: PSNR, dB", plus_minus(vae["psnr"], 1)),
        ("the same: LPIPS", plus_minus(vae["lpips"], 3)),
        ("the same: distance to set C", plus_minus(vae["distance_to_set_C"])),
        ("the same: faces found", 1 - vae["fdfr"]),
        (f"generated faces that dlib finds, of {prompts['samples']}", prompts["face_detected"]),
        ("samples whose background has the prompt's colour", prompts["background_follows"]),
        ("samples whose hair has it", f"{percent(prompts['hair_follows'])}: {hair}"),
        ("renders of which the rule for hair finds the colour", prompts["rule_on_renders"]["hair"]),
    ]
    return table(("what", "figure"), [(k, v if isinstance(v, str) else percent(v)) for k, v in rows])


def purified(found: Mapping) -> str:
    """What purification does to clean held-out photos."""
    rows = []
    for key, name in PURIFIERS.items():
        row = found["rows"][key]
        psnr = plus_minus(row["psnr"], 1) if row["psnr"] else "–"
        shares = percent(1 - row["fdfr"]), percent(row["same_person"])
        rows.append((name, psnr, plus_minus(row["distance_to_set_C"]), *shares))
    head = (f"{found['photos']} clean held-out photos", "PSNR, dB", "distance to set C", "faces found")
    return table((*head, "accepted as the person"), rows)


def learned(found: Mapping) -> str:
    """What DreamBooth and LoRA learn from four clean photos."""
    rows = []
    for key, name in LEARNERS.items():
        row = found["summary"][key]
        own = [r["same_person"] for r in found["rows"] if r["method"] == key]
        figures = plus_minus(row["ism"], 3), plus_minus(row["distance"], 3)
        rows.append((name, percent(row["same_person"]["mean"]), percent(min(own)), *figures))
        rows[-1] += (plus_minus(row["seconds"], 0),)
    count = found["summary"]["lora"]["distance"]["n"]
    head = f"four clean photos of each of {count} people", "pass rate", "the worst run's", "ISM", "distance"
    return table((*head, "seconds"), rows)


def with_small_models(measured: str) -> str:
    """The text of docs/measured.md with fresh tables between its two marks."""

    def read(*parts: str) -> dict:
        return json.loads(data_path(*parts).read_text(encoding="utf-8"))

    names = ("vae", "prompts", "purifier", "customize")
    vae, prompts, purifier, customize = (read("results", f"nano_{name}.json") for name in names)
    judge = read("faces", "calibration.json")
    text = "\n".join([networks(judge, vae, prompts), purified(purifier), learned(customize)])
    return TABLE.sub(lambda _: text, measured)


def main(argv: Sequence[str] = (), measured: Path = MEASURED) -> int:
    """Write the tables and return the exit status."""
    text = measured.read_text(encoding="utf-8")
    if (fresh := with_small_models(text)) != text:
        write_text(measured, fresh)
        print(f"{measured}: the small models' tables written")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
