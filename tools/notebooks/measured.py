"""The small models' tables in docs/measured.md.

The figures are those that `python -m tools.study.nano` leaves in data/results and data/faces.
"""

import json
from collections.abc import Mapping

from antipure_lib.models.embedded import data_path
from antipure_lib.notebook.show import table
from tools.notebooks.stamp import between_marks

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


def networks(judge: Mapping, vae: Mapping, prompts: Mapping) -> str:
    """The judge on rendered people, the autoencoder, and whether samples follow their prompts."""
    renders = f"{judge['people'] * judge['photos']} renders of {judge['people']} people, {judge['size']} px"
    hair = ", ".join(f"{colour} {percent(share)}" for colour, share in prompts["hair_by_colour"].items())
    figures = {
        f"faces that dlib finds in {renders}": percent(judge["detected"]),
        "same person against strangers: area under the ROC curve (AUC)": f"{judge['auc']:.4f}",
        "threshold: the distance that 1 % of strangers fall under": judge["threshold"],
        "pairs of one person's photos under it": percent(judge["tpr"]),
        f"autoencoder, {vae['photos']} held-out photos: PSNR, dB": plus_minus(vae["psnr"], 1),
        "the same: LPIPS": plus_minus(vae["lpips"], 3),
        "the same: distance to set C": plus_minus(vae["distance_to_set_C"]),
        "the same: faces found": percent(1 - vae["fdfr"]),
        f"generated faces that dlib finds, of {prompts['samples']}": percent(prompts["face_detected"]),
        "samples whose background has the prompt's colour": percent(prompts["background_follows"]),
        "samples whose hair has it": f"{percent(prompts['hair_follows'])}: {hair}",
        "renders of which the rule for hair finds the colour": percent(prompts["rule_on_renders"]["hair"]),
    }
    return table([{"what": what, "figure": figure} for what, figure in figures.items()])


def purified(found: Mapping) -> str:
    """What purification does to clean held-out photos."""
    rows = []
    for key, name in PURIFIERS.items():
        row = found["rows"][key]
        rows.append(
            {
                f"{found['photos']} clean held-out photos": name,
                "PSNR, dB": plus_minus(row["psnr"], 1) if row["psnr"] else "–",
                "distance to set C": plus_minus(row["distance_to_set_C"]),
                "faces found": percent(1 - row["fdfr"]),
                "accepted as the person": percent(row["same_person"]),
            }
        )
    return table(rows)


def learned(found: Mapping) -> str:
    """What DreamBooth and LoRA learn from four clean photos, next to the photos themselves."""
    summary, real = found["summary"], found["real"]
    first = f"four clean photos of each of {summary['lora']['distance']['n']} people"
    photos = {
        "ISM": plus_minus(real["ism of set B"], 3),
        "ISM to others": plus_minus(real["ism of others"], 3),
        "distance": plus_minus(real["distance, set B to set C"], 3),
    }
    others = ("pass rate", "the worst run's", "distance to others", "seconds")
    rows = [{first: "the photos themselves"} | dict.fromkeys(others, "–") | photos]
    for key, name in LEARNERS.items():
        row = summary[key]
        own = [r["same_person"] for r in found["rows"] if r["method"] == key]
        rows.append(
            {
                first: name,
                "pass rate": percent(row["same_person"]["mean"]),
                "the worst run's": percent(min(own)),
                "ISM": plus_minus(row["ism"], 3),
                "ISM to others": "–",
                "distance": plus_minus(row["distance"], 3),
                "distance to others": plus_minus(row["distance_to_others"], 3),
                "seconds": plus_minus(row["seconds"], 1),
            }
        )
    return table([{name: row[name] for name in rows[-1]} for row in rows])


def with_small_models(measured: str) -> str:
    """The text of docs/measured.md with fresh tables between its two marks."""

    def read(*parts: str) -> dict:
        return json.loads(data_path(*parts).read_text(encoding="utf-8"))

    names = ("vae", "prompts", "purifier", "customize")
    vae, prompts, purifier, customize = (read("results", f"nano_{name}.json") for name in names)
    judge = read("faces", "calibration.json")
    tables = [networks(judge, vae, prompts), purified(purifier), learned(customize)]
    return between_marks(measured, "small models", "\n\n".join(tables) + "\n")
