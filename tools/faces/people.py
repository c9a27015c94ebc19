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
    "red": (166, 58, 56),
    "orange": (220, 134, 66),
    "yellow": (228, 206, 104),
    "green": (98, 146, 98),
    "blue": (94, 130, 182),
    "purple": (138, 106, 162),
    "grey": (124, 126, 130),
    "white": (242, 242, 240),
}
LIGHTS = {
    "soft light": (1.15, 1.0, 0.75, 0.0),
    "light from the left": (2.1, 0.5, 0.25, 0.0),
    "light from the right": (2.1, 0.5, 0.25, 0.0),
    "dim light": (1.2, 0.5, 0.5, 0.03),
    "window light": (1.7, 0.62, 0.9, -0.05),
    "evening light": (2.1, 0.5, 0.3, 0.14),
}
"""Power of the key light, of what fills its shadows, softness (0-1) and warmth of each light."""
LENGTH = {
    "shaved": "shaved",
    "buzz": "short",
    "crop": "short",
    "parted": "short",
    "swept": "short",
    "tousled": "short",
    "receding": "short",
    "pixie": "short",
    "bob": "long",
    "long": "long",
    "wavy": "long",
    "ringlets": "curly",
    "curls": "curly",
    "afro": "curly",
    "locs": "long",
    "bun": "tied",
    "ponytail": "tied",
}
"""Every hair style and the word for it in captions."""
STYLES = tuple(LENGTH)
MALE_STYLES = dict(shaved=0.08, buzz=0.12, crop=0.17, parted=0.15, swept=0.12, tousled=0.12, receding=0.08)
MALE_STYLES |= dict(curls=0.06, afro=0.04, long=0.03, locs=0.03)
FEMALE_STYLES = dict(
    bob=0.17, long=0.18, wavy=0.18, ringlets=0.12, bun=0.11, ponytail=0.1, pixie=0.07
) | dict(afro=0.05, locs=0.02)
MALE_CLOTHES = dict(crew=0.3, shirt=0.28, jacket=0.16, hoodie=0.12, vneck=0.08, roll=0.06)
FEMALE_CLOTHES = dict(crew=0.24, scoop=0.2, shirt=0.16, vneck=0.14, roll=0.12, jacket=0.08, hoodie=0.06)
HEAD_SHAPES = ["oval", "round", "square", "triangular", "rectangular", "diamond", "invertedtriangular"]
REFINE = {
    "nose/nose-volume-decr": 0.25,
    "nose/nose-scale-horiz-decr": 0.3,
    "nose/nose-width1-decr": 0.15,
    "nose/nose-width2-decr": 0.2,
    "nose/nose-width3-decr": 0.15,
    "nose/nose-point-width-decr": 0.2,
    "nose/nose-scale-depth-decr": 0.15,
    "chin/chin-width-decr": 0.12,
    "mouth/mouth-trans-backward": 0.15,
    "mouth/mouth-lowerlip-volume-decr": 0.1,
}
"""Shift of a pair's mean towards the named morph: the mean of the plain model has a heavy nose and mouth."""
SPREAD = dict(
    head=0.22,
    forehead=0.32,
    nose=0.34,
    mouth=0.29,
    chin=0.3,
    eyes=0.28,
    cheek=0.37,
    eyebrows=0.4,
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


def sample_shape(rng, pairs: list[tuple[str, str]], ancestry, male: float, old: float) -> dict[str, float]:
    """Morph weights of one head: sex, age and weight, then every pair of opposite morphs."""
    heavy = float(np.clip(rng.normal(0.08, 0.22), 0, 0.6))
    morphs = {}
    for sex, share in (("male", male), ("female", 1 - male)):
        for age, part in (("young", 1 - old), ("old", old)):
            for people, fraction in zip(("african", "asian", "caucasian"), ancestry, strict=True):
                morphs[f"macro/{people}-{sex}-{age}"] = fraction * share * part
            stem = f"macro/universal-{sex}-{age}-averagemuscle-"
            morphs[stem + "averageweight"] = share * part * (1 - heavy)
            morphs[stem + "maxweight"] = share * part * heavy
    shape = rng.choice(HEAD_SHAPES)
    morphs[f"head/head-{shape}"] = rng.uniform(0, 0.6)
    for low, high in pairs:
        section = low.split("/")[0]
        bias = REFINE.get(low, 0.0)
        limit = 2.2 * SPREAD[section]
        weight = float(np.clip(rng.normal(0, SPREAD[section]), -limit, limit)) - bias
        name = high if weight > 0 else low
        morphs[name] = morphs.get(name, 0) + abs(weight)
        if "/l-" in name:
            morphs[name.replace("/l-", "/r-")] = abs(weight) * rng.uniform(0.85, 1.15)
    return morphs


def sample_hair(rng, male: bool, old: float, fair: float) -> dict:
    """Hair and brows of one person: colour, style, texture, and how much of it is grey."""
    colours = dict(
        black=0.45 - 0.3 * fair,
        brown=0.3,
        blond=0.03 + 0.25 * fair,
        red=0.03 + 0.12 * fair,
        grey=0.02 + 0.6 * old**2,
    )
    name = _pick(rng, colours)
    shade = np.array(HAIR_COLOURS[name]) * rng.uniform(0.85, 1.15) + rng.normal(0, 2, 3)
    style = _pick(rng, MALE_STYLES if male else FEMALE_STYLES)
    return dict(
        hair_name=name,
        hair=srgb(np.clip(shade, 8, 250)),
        style=style,
        hairline=float(rng.normal(0, 0.05)),
        volume=float(rng.uniform(0.75, 1.3)),
        part=float(rng.choice([-1, 1]) * rng.uniform(0.08, 0.42)),
        bangs=bool(rng.random() < 0.35),
        tucked=bool(rng.random() < 0.4),
        grain=float(rng.uniform(0.6, 1.4)),
        grey=float(0 if name == "grey" else rng.uniform(0, 0.6) * np.clip(2.5 * old - 0.5, 0, 1)),
        brow=dict(
            dark=rng.uniform(0.8, 1.0),
            thick=rng.uniform(0.018, 0.028) + 0.009 * male,
            arch=rng.uniform(0.005, 0.04) * (1.3 - 0.6 * male),
            lift=rng.normal(0, 0.015),
            dense=rng.uniform(0.75, 1.3),
        ),
    )


def sample_skin(rng, depth: float, male: float, old: float) -> dict:
    """Skin of one person: tone, what reddens it, freckles, moles, shine and texture."""
    tone = SKIN[int(depth)] * (1 - depth % 1) + SKIN[int(depth) + 1] * (depth % 1)
    fair = np.clip((2.2 - depth) / 2, 0, 1)
    moles = int(rng.integers(0, 5))
    places = [rng.uniform(-0.55, 0.55, moles), rng.uniform(6.5, 7.75, moles)]
    return dict(
        skin=srgb(np.clip(tone + rng.normal(0, 3.5, 3), 20, 250)),
        lip_tint=float(rng.uniform(0.2, 0.45) + (1 - male) * rng.uniform(0, 0.4)),
        blush=float(rng.uniform(0.0, 0.4)),
        blotches=float(rng.uniform(0.5, 1.4)),
        shine=float(rng.uniform(0.6, 1.5)),
        pores=float(rng.uniform(0.6, 1.4) * (1 + 0.4 * old)),
        freckles=float(rng.uniform(0.3, 0.9) if rng.random() < 0.12 + 0.2 * fair else 0),
        moles=np.stack([*places, rng.uniform(0.008, 0.016, moles)], 1),
    )


def sample_garment(rng, male: bool) -> dict:
    """One piece of clothing: its cut, two colours, pattern and how high it closes."""
    kind = _pick(rng, MALE_CLOTHES if male else FEMALE_CLOTHES)
    colour = np.clip(rng.uniform(25, 215) + rng.normal(0, 34, 3), 12, 240)
    second = np.clip(rng.uniform(170, 240) + rng.normal(0, 12, 3), 30, 245)
    return dict(
        kind=kind,
        colour=srgb(colour),
        second=srgb(second),
        pattern=_pick(rng, dict(plain=0.55, knit=0.2, stripes=0.13, checks=0.12)),
        height=float(rng.uniform(-0.05, 0.05)),
        seed=int(rng.integers(1 << 30)),
    )


def sample_glasses(rng) -> dict | None:
    """A pair of glasses for every fourth person."""
    if rng.random() > 0.25:
        return None
    frames = [(18, 18, 20), (60, 36, 24), (128, 26, 30), (30, 46, 86), (150, 150, 155), (96, 66, 32)]
    return dict(
        colour=srgb(frames[rng.integers(len(frames))]),
        round=float(rng.uniform(2.2, 5)),
        width=rng.uniform(0.23, 0.265),
        height=rng.uniform(0.165, 0.215),
        thick=rng.uniform(0.013, 0.024),
    )


def sample_identity(seed: int, pairs: list[tuple[str, str]]) -> dict:
    """One person: morph weights and everything that stays the same from photo to photo."""
    rng = np.random.default_rng([11, seed])
    ancestry = rng.dirichlet([0.45, 0.45, 0.45])
    male = float(rng.random() < 0.5)
    male = float(np.clip(abs(male - abs(rng.normal(0, 0.12))), 0, 1))
    old = float(np.clip(rng.beta(1.1, 3.0), 0, 0.9))
    morphs = sample_shape(rng, pairs, ancestry, male, old)
    depth = ancestry @ np.array([4.3, 1.3, 0.9]) + rng.normal(0, 0.45)
    depth = float(np.clip(depth, 0, len(SKIN) - 1.001))
    fair = float(np.clip((2.2 - depth) / 2, 0, 1))
    beards = {"": 0.45, "stubble": 0.25, "full": 0.2, "goatee": 0.1}
    eyes = np.array([0.56 - 0.36 * fair, 0.26 - 0.06 * fair, 0.05 + 0.25 * fair, 0.08 + 0.1 * fair])
    hair = sample_hair(rng, male > 0.5, old, fair)
    return dict(
        seed=seed,
        morphs=morphs,
        male=male,
        old=old,
        **hair,
        **sample_skin(rng, depth, male, old),
        eyes=srgb(EYE_COLOURS[rng.choice(5, p=[*eyes, 1 - eyes.sum()])]),
        lash=float(0.35 + 0.5 * (1 - male)),
        beard=(_pick(rng, beards) or None) if male > 0.5 else None,
        beard_length=float(rng.uniform(0.5, 1.5)),
        glasses=sample_glasses(rng),
        wardrobe=[sample_garment(rng, male > 0.5) for _ in range(2)],
    )


def sample_expression(rng) -> tuple[bool, dict[str, float]]:
    """Whether a photo is captioned as smiling, and the weights of the face's expression units."""
    smiling = bool(rng.random() < 0.45)
    smile = float(rng.uniform(0.4, 0.95) if smiling else rng.uniform(0.03, 0.15))
    laugh = float(smiling and rng.random() < 0.45) * rng.uniform(0.3, 1)
    frown = float(0 if smiling else rng.uniform(0, 0.05))
    down = float(rng.uniform(0.1, 0.4) if rng.random() < 0.2 else 0)
    raised = float(rng.uniform(0.1, 0.6) if rng.random() < 0.25 else 0)
    lids = float(rng.uniform(0.35, 0.7))
    units = dict(
        jawOpen=0.13 * laugh + float(rng.uniform(0, 0.14) if rng.random() < 0.25 else 0),
        browInnerUp=raised * rng.uniform(0.3, 1),
        mouthPucker=float(rng.uniform(0.05, 0.25) if not smiling and rng.random() < 0.15 else 0),
    )
    for side in ("Left", "Right"):
        own = rng.uniform(0.88, 1.12)
        units |= {
            f"mouthSmile{side}": smile * own,
            f"cheekSquint{side}": 0.3 * smile * own,
            f"eyeSquint{side}": 0.2 * smile + 0.1 * down,
            f"mouthUpperUp{side}": 0.2 * smile + 0.35 * laugh,
            f"mouthLowerDown{side}": 0.2 * laugh,
            f"eyeWide{side}": lids,
            f"mouthFrown{side}": frown,
            f"browDown{side}": down,
            f"browOuterUp{side}": raised * rng.uniform(0.5, 1),
            f"mouthPress{side}": float(0 if smiling else rng.uniform(0, 0.2)),
        }
    return smiling, units


def sample_light(rng) -> dict:
    """Light of one photo: where the key light stands, how hard, warm and strong it is, and what fills."""
    name = str(rng.choice(list(LIGHTS), p=[0.32, 0.17, 0.17, 0.12, 0.12, 0.1]))
    power, fill, soft, warm = LIGHTS[name]
    side = {"light from the left": -1.0, "light from the right": 1.0}.get(name, 0.0)
    if name in ("window light", "evening light"):
        side = float(rng.choice([-0.85, 0.85]))
    tilt = side * rng.uniform(0.75, 1.25) if side else rng.uniform(-0.4, 0.4)
    key = np.array([tilt, rng.uniform(0.25, 0.8) * (0.5 if name == "evening light" else 1), 1.0])
    rim = rng.uniform(0.3, 1.1) if rng.random() < 0.3 else 0.0
    return dict(
        light_name=name,
        key=key / np.linalg.norm(key),
        key_power=float(power * rng.uniform(0.9, 1.1)),
        fill=float(fill * rng.uniform(0.85, 1.15)),
        softness=float(np.clip(soft * rng.uniform(0.8, 1.2), 0, 1)),
        warmth=float(warm + rng.normal(0, 0.05)),
        rim=float(rim),
        rim_side=float(rng.choice([-1, 1])),
        level=float(0.62 if name == "dim light" else 1.0),
    )


def sample_camera(rng) -> dict:
    """The camera of one photo: focus, grain, white balance, vignette and exposure."""
    return dict(
        blur=float(rng.uniform(0.15, 0.42)),
        grain=float(rng.uniform(0.4, 1.3)),
        balance=rng.normal(0, [0.028, 0.008]),
        vignette=float(rng.uniform(0, 0.3)),
        exposure=float(np.exp(rng.normal(0, 0.1))),
        contrast=float(rng.uniform(1.0, 1.35)),
        saturation=float(rng.uniform(0.88, 1.08)),
    )


def sample_photo(seed: int, identity: dict) -> dict:
    """One photo of a person: pose, gaze, expression, clothes, light, background and camera."""
    rng = np.random.default_rng([12, identity["seed"], seed])
    smiling, units = sample_expression(rng)
    background = str(rng.choice(list(BACKGROUNDS)))
    colour = np.clip(np.array(BACKGROUNDS[background]) + rng.normal(0, 6, 3), 5, 250)
    yaw = float(np.clip(rng.normal(0, 11), -23, 23))
    return dict(
        seed=seed,
        units=units,
        smile=smiling,
        yaw=yaw,
        pitch=float(np.clip(rng.normal(0, 5), -10, 10)),
        roll=float(np.clip(rng.normal(0, 4), -9, 9)),
        gaze=rng.normal(0, [5, 3.5]) - [0.5 * yaw, 0],
        scale=float(rng.uniform(0.93, 1.06)),
        shift=rng.normal(0, 0.014, 2),
        garment=int(rng.integers(len(identity["wardrobe"]))),
        background_name=background,
        background=srgb(colour),
        scenery=_pick(rng, dict(wall=0.34, blur=0.22, bokeh=0.16, lines=0.14, shade=0.14)),
        **sample_light(rng),
        **sample_camera(rng),
    )


def caption(identity: dict, photo: dict) -> str:
    """What the picture shows, in the words that the tokenizer knows."""
    length = LENGTH[identity["style"]]
    parts = [f"a photo of a person with {length} {identity['hair_name']} hair"]
    if identity["beard"] in ("full", "goatee"):
        parts.append("a beard")
    if identity["glasses"]:
        parts.append("glasses")
    if photo["smile"]:
        parts.append("smiling")
    parts.append(f"{photo['background_name']} background")
    parts.append(photo["light_name"])
    return ", ".join(parts)
