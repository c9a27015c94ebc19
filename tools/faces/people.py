"""Who is in the picture: identities and photo settings drawn from seeds, and the caption for both.

An identity fixes the shape of the head, skin, hair, brows, beard, glasses and freckles; a photo fixes pose,
gaze, expression, light and background. Captions name what a reader can see and never ethnicity.
"""

import numpy as np

SKIN = np.array(
    [
        (243, 209, 190),
        (232, 190, 165),
        (214, 165, 132),
        (185, 130, 97),
        (140, 92, 66),
        (98, 64, 48),
        (70, 46, 37),
    ]
)
"""sRGB anchors from the lightest to the darkest skin."""
HAIR_COLOURS = {
    "black": (26, 22, 22),
    "brown": (84, 53, 33),
    "blond": (196, 156, 92),
    "red": (148, 66, 28),
    "grey": (138, 136, 134),
}
EYE_COLOURS = [(70, 42, 24), (96, 62, 34), (84, 110, 132), (92, 108, 70), (112, 116, 118)]
BACKGROUNDS = {
    "red": (176, 62, 58),
    "orange": (224, 142, 70),
    "yellow": (228, 204, 96),
    "green": (92, 152, 88),
    "blue": (84, 128, 190),
    "purple": (138, 98, 168),
    "grey": (134, 136, 140),
    "white": (234, 234, 232),
}
LIGHTS = ("soft light", "light from the left", "light from the right", "dim light")
STYLES = ("shaved", "crop", "parted", "swept", "receding", "bob", "long", "wavy", "curly", "afro", "bun")
LENGTH = {
    "shaved": "shaved",
    "crop": "short",
    "parted": "short",
    "swept": "short",
    "receding": "short",
    "bob": "long",
    "long": "long",
    "wavy": "long",
    "curly": "curly",
    "afro": "curly",
    "bun": "tied",
}
MALE_STYLES = dict(
    shaved=0.16, crop=0.24, parted=0.18, swept=0.14, receding=0.1, curly=0.06, afro=0.06, long=0.06
)
FEMALE_STYLES = dict(bob=0.2, long=0.24, wavy=0.2, curly=0.12, afro=0.06, bun=0.12, crop=0.06)
SPREAD = dict(
    head=0.22,
    forehead=0.3,
    nose=0.3,
    mouth=0.26,
    chin=0.28,
    eyes=0.24,
    cheek=0.35,
    eyebrows=0.35,
    ears=0.35,
    neck=0.2,
)
"""Standard deviation of each section's morph weights: near a population's spread, far from caricature."""
OPPOSITES = (
    ("decr", "incr"),
    ("down", "up"),
    ("in", "out"),
    ("concave", "convex"),
    ("compress", "uncompress"),
    ("backward", "forward"),
)
UNNATURAL = ("head/head-trans", "head/head-angle", "neck/neck-trans", "head/head-age", "ear-shape", "measure")


def paired_morphs(names: list[str]) -> list[tuple[str, str]]:
    """Pairs (low, high) of morphs that pull in opposite directions; of left and right only the left one."""
    known, pairs = set(names), []
    for name in names:
        if name.split("/")[-1].startswith("r-") or any(part in name for part in UNNATURAL):
            continue
        for low, high in OPPOSITES:
            if name.endswith("-" + low) and name[: -len(low)] + high in known:
                pairs.append((name, name[: -len(low)] + high))
    return pairs


def srgb(colour) -> np.ndarray:
    """An 8-bit sRGB triple as linear light in [0,1]."""
    return (np.asarray(colour, float) / 255) ** 2.2


def _pick(rng, table: dict) -> str:
    weights = np.array(list(table.values()), float)
    return str(rng.choice(list(table), p=weights / weights.sum()))


def sample_identity(seed: int, pairs: list[tuple[str, str]]) -> dict:
    """One person: morph weights and everything that stays the same from photo to photo."""
    rng = np.random.default_rng([11, seed])
    ancestry = rng.dirichlet([0.45, 0.45, 0.45])
    male = float(rng.random() < 0.5)
    male = float(np.clip(abs(male - abs(rng.normal(0, 0.12))), 0, 1))
    old = float(np.clip(rng.beta(1.1, 3.2), 0, 0.9))
    heavy = float(np.clip(rng.normal(0.1, 0.25), 0, 0.7))
    morphs = {}
    for sex, share in (("male", male), ("female", 1 - male)):
        for age, part in (("young", 1 - old), ("old", old)):
            for people, fraction in zip(("african", "asian", "caucasian"), ancestry, strict=True):
                morphs[f"macro/{people}-{sex}-{age}"] = fraction * share * part
            stem = f"macro/universal-{sex}-{age}-averagemuscle-"
            morphs[stem + "averageweight"] = share * part * (1 - heavy)
            morphs[stem + "maxweight"] = share * part * heavy
    shape = rng.choice(
        ["oval", "round", "square", "triangular", "rectangular", "diamond", "invertedtriangular"]
    )
    morphs[f"head/head-{shape}"] = rng.uniform(0, 0.6)
    for low, high in pairs:
        section = low.split("/")[0]
        weight = float(np.clip(rng.normal(0, SPREAD[section]), -2.2 * SPREAD[section], 2.2 * SPREAD[section]))
        name = high if weight > 0 else low
        morphs[name] = morphs.get(name, 0) + abs(weight)
        if "/l-" in name:
            morphs[name.replace("/l-", "/r-")] = abs(weight) * rng.uniform(0.85, 1.15)

    depth = ancestry @ np.array([4.3, 1.3, 0.9]) + rng.normal(0, 0.45)
    depth = float(np.clip(depth, 0, len(SKIN) - 1.001))
    tone = SKIN[int(depth)] * (1 - depth % 1) + SKIN[int(depth) + 1] * (depth % 1)
    tone = np.clip(tone + rng.normal(0, 3.5, 3), 20, 250)
    fair = np.clip((2.2 - depth) / 2, 0, 1)
    colour = _pick(
        rng,
        dict(
            black=0.45 - 0.3 * fair,
            brown=0.3,
            blond=0.03 + 0.25 * fair,
            red=0.03 + 0.12 * fair,
            grey=0.02 + 0.6 * old**2,
        ),
    )
    style = _pick(rng, MALE_STYLES if male > 0.5 else FEMALE_STYLES)
    beard = None
    if male > 0.5:
        beard = _pick(rng, {"": 0.5, "stubble": 0.2, "full": 0.2, "goatee": 0.1}) or None
    glasses = None
    if rng.random() < 0.25:
        frames = [(18, 18, 20), (60, 36, 24), (128, 26, 30), (30, 46, 86), (150, 150, 155)]
        glasses = dict(
            colour=srgb(frames[rng.integers(len(frames))]),
            round=float(rng.uniform(2.2, 5)),
            width=rng.uniform(0.215, 0.25),
            height=rng.uniform(0.16, 0.21),
            thick=rng.uniform(0.014, 0.026),
        )
    return dict(
        seed=seed,
        morphs=morphs,
        male=male,
        old=old,
        skin=srgb(tone),
        hair_name=colour,
        hair=srgb(
            np.clip(np.array(HAIR_COLOURS[colour]) * rng.uniform(0.85, 1.12) + rng.normal(0, 2, 3), 8, 250)
        ),
        style=style,
        eyes=srgb(
            EYE_COLOURS[
                rng.choice(
                    5,
                    p=[
                        0.45 - 0.2 * fair,
                        0.25 - 0.1 * fair,
                        0.1 + 0.2 * fair,
                        0.1 + 0.07 * fair,
                        0.1 + 0.03 * fair,
                    ],
                )
            ]
        ),
        lip_tint=float(rng.uniform(0.25, 0.5) + (1 - male) * rng.uniform(0, 0.35)),
        blush=float(rng.uniform(0.0, 0.35)),
        freckles=float(rng.uniform(0.3, 0.9) if rng.random() < 0.12 + 0.2 * fair else 0),
        brow=dict(
            dark=rng.uniform(0.75, 1.0),
            thick=rng.uniform(0.022, 0.034) + 0.012 * male,
            arch=rng.uniform(0.005, 0.04) * (1.3 - 0.6 * male),
            lift=rng.normal(0, 0.015),
        ),
        lash=float(0.35 + 0.5 * (1 - male)),
        beard=beard,
        beard_dark=float(rng.uniform(0.55, 0.9)),
        glasses=glasses,
        hairline=float(rng.normal(0, 0.05)),
        volume=float(rng.uniform(0.75, 1.3)),
        part=float(rng.choice([-1, 1]) * rng.uniform(0.1, 0.5)),
        bangs=bool(rng.random() < 0.35),
        shirt=srgb(np.clip(rng.uniform(40, 215) + rng.normal(0, 32, 3), 15, 240)),
        collar=float(rng.uniform(5.62, 5.95)),
    )


def sample_photo(seed: int, identity: dict) -> dict:
    """One photo of a person: pose, gaze, expression, light and background."""
    rng = np.random.default_rng([12, identity["seed"], seed])
    smile = float(rng.uniform(0.45, 0.95) if rng.random() < 0.45 else 0)
    units = dict(
        mouthSmileLeft=smile,
        mouthSmileRight=smile * rng.uniform(0.85, 1.1),
        cheekSquintLeft=0.5 * smile,
        cheekSquintRight=0.5 * smile,
        eyeSquintLeft=0.3 * smile,
        eyeSquintRight=0.3 * smile,
        jawOpen=float(rng.uniform(0, 0.12) if rng.random() < 0.35 else 0),
        mouthUpperUpLeft=0.25 * smile,
        mouthUpperUpRight=0.25 * smile,
        eyeWideLeft=0.3,
        eyeWideRight=0.3,
        browInnerUp=float(rng.uniform(0, 0.5) if rng.random() < 0.3 else 0),
        mouthFrownLeft=float(0 if smile else rng.uniform(0, 0.08)),
    )
    units["mouthFrownRight"] = units["mouthFrownLeft"]
    units["browDownLeft"] = units["browDownRight"] = float(rng.uniform(0, 0.25) if rng.random() < 0.2 else 0)
    light = str(rng.choice(LIGHTS, p=[0.4, 0.22, 0.22, 0.16]))
    side = {"light from the left": -1.0, "light from the right": 1.0}.get(light, rng.uniform(-0.35, 0.35))
    key = np.array([side * rng.uniform(0.9, 1.2) if abs(side) == 1 else side, rng.uniform(0.25, 0.7), 1.0])
    background = str(rng.choice(list(BACKGROUNDS)))
    colour = np.clip(np.array(BACKGROUNDS[background]) + rng.normal(0, 7, 3), 5, 250)
    return dict(
        seed=seed,
        units=units,
        smile=smile > 0,
        yaw=float(np.clip(rng.normal(0, 11), -22, 22)),
        pitch=float(np.clip(rng.normal(0, 4.5), -9, 9)),
        roll=float(np.clip(rng.normal(0, 3), -7, 7)),
        gaze=rng.normal(0, [7, 4]),
        scale=float(rng.uniform(0.94, 1.06)),
        shift=rng.normal(0, 0.012, 2),
        light_name=light,
        key=key / np.linalg.norm(key),
        key_power=float({"soft light": 1.35, "dim light": 0.75}.get(light, 2.2) * rng.uniform(0.92, 1.08)),
        fill=float({"soft light": 0.95, "dim light": 0.42}.get(light, 0.42) * rng.uniform(0.92, 1.08)),
        softness=float({"soft light": 0.55, "dim light": 0.4}.get(light, 0.12)),
        warmth=float(rng.normal(0, 0.05)),
        background_name=background,
        background=srgb(colour),
    )


def caption(identity: dict, photo: dict, subject: str = "a person") -> str:
    """What the picture shows, in the words that the tokenizer knows."""
    length = LENGTH[identity["style"]]
    parts = [f"a photo of {subject} with {length} {identity['hair_name']} hair"]
    if identity["beard"] in ("full", "goatee"):
        parts.append("a beard")
    if identity["glasses"]:
        parts.append("glasses")
    if photo["smile"]:
        parts.append("smiling")
    parts.append(f"{photo['background_name']} background")
    parts.append(photo["light_name"])
    return ", ".join(parts)
