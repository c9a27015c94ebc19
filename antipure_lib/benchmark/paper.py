"""What the paper reports, as rows that the tables and figures of the benchmark take.

Yang, Cao, Duan, He, ICCV 2025, arXiv 2509.13922. Figures after purification and customization are means over
50 people with 12 photos each, 512 px. ISM comes from another face recogniser than ours, and
FID from Inception features: only directions and ranks can be compared.
"""

from math import nan

from .study import CHAIN

ITERATIONS = ("gridpure10", "gridpure20", "gridpure30", CHAIN)  # 10, 20, 30, 40

_AFTER_CHAIN = {  # FID, ISM, BRISQUE
    ("CelebA-HQ", "dreambooth", "advdm"): (77.51, 0.6561, 31.33),
    ("CelebA-HQ", "dreambooth", "mist"): (70.23, 0.6688, 37.00),
    ("CelebA-HQ", "dreambooth", "aspl"): (78.84, 0.6422, 31.76),
    ("CelebA-HQ", "dreambooth", "simac"): (67.37, 0.6734, 33.73),
    ("CelebA-HQ", "dreambooth", "antipure-paper"): (81.15, 0.6112, 43.60),
    ("VGGFace2", "dreambooth", "advdm"): (83.90, 0.5923, 37.42),
    ("VGGFace2", "dreambooth", "aspl"): (90.29, 0.5938, 38.35),
    ("VGGFace2", "dreambooth", "antipure-paper"): (90.77, 0.5475, 46.01),
    ("VGGFace2", "lora", "aspl"): (117.89, 0.5723, 58.56),
    ("VGGFace2", "lora", "antipure-paper"): (127.67, 0.5428, 69.97),
}

_BY_ITERATIONS = {  # nan where no figure is known
    "ism": {"aspl": (0.6020, 0.6352, 0.6473, 0.6391), "antipure-paper": (0.6362, 0.6271, 0.6075, 0.5994)},
    "fid": {"aspl": (124.62, nan, nan, 77.30), "antipure-paper": (54.45, nan, nan, 78.21)},
    "brisque": {"aspl": (32.74, nan, nan, 30.34), "antipure-paper": (40.27, nan, nan, 47.54)},
}

# Rows of its main tables; "aspl" is Anti-DreamBooth. `data` says on which photos.
MAIN = [
    dict(fid=fid, ism=ism, brisque=brisque, data=data, purify=CHAIN, customize=customize)
    | {"protect": protect, "identity": "mean of 50"}
    for (data, customize, protect), (fid, ism, brisque) in _AFTER_CHAIN.items()
]
# Rows of its figures after 10, 20, 30 and 40 iterations of purification.
BY_ITERATIONS = [
    {"protect": protect, "purify": purify, "identity": "mean of 50"}
    | {figure: of[protect][place] for figure, of in _BY_ITERATIONS.items()}
    for protect in _BY_ITERATIONS["ism"]
    for place, purify in enumerate(ITERATIONS)
]
