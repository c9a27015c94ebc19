"""The look of skin, eyes and teeth: colour, relief and shine at points of the base head."""

from functools import lru_cache

import numpy as np
from scipy.ndimage import gaussian_filter

from tools.faces.fur import beard_mask, brow_colour, brow_shape
from tools.faces.hair import azimuth, line_height
from tools.faces.raster import texture


@lru_cache(maxsize=1)
def noise_textures() -> dict[str, np.ndarray]:
    """Periodic textures of unit size, the same for everybody: blotches, pores, and the pores' slopes."""
    rng = np.random.default_rng(7)

    def smooth(sigma):
        noise = gaussian_filter(rng.normal(0, 1, (512, 512)), sigma, mode="wrap")
        return noise / noise.std()

    blotch = 0.5 * smooth(1) + 0.6 * smooth(3) + 0.8 * smooth(9) + 0.8 * smooth(30)
    pores = 0.8 * smooth(2.2) + 0.6 * smooth(4.5) - 1.2 * np.clip(smooth(2.6) - 1.4, 0, 2)
    textures = dict(blotch=blotch, pores=pores)
    textures["slope_x"] = np.gradient(np.pad(pores, 1, mode="wrap"), axis=1)[1:-1, 1:-1]
    textures["slope_y"] = np.gradient(np.pad(pores, 1, mode="wrap"), axis=0)[1:-1, 1:-1]
    return {name: (value / value.std()).astype(np.float32) for name, value in textures.items()}


def mix(a: np.ndarray, b: np.ndarray, share: np.ndarray) -> np.ndarray:
    """`a` where `share` is 0, `b` where it is 1 (N×3, 3 or N×3, N)."""
    return a + (b - a) * np.clip(share, 0, 1)[:, None]


def _near(x, y, at_x: float, at_y: float, wide: float, high: float) -> np.ndarray:
    return np.exp(-(((x - at_x) / wide) ** 2) - ((y - at_y) / high) ** 2)


def _spread(identity: dict, rest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Texture coordinates (dm along the surface) with an offset per person."""
    return azimuth(rest) * 0.85 + 0.137 * (identity["seed"] % 97), rest[:, 1]


def skin_colour(identity: dict, rest: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Albedo at points of the base head: tone, blotches, blush, lips, freckles, moles, short hair."""
    noise = noise_textures()
    ax, y, z = np.abs(rest[:, 0]), rest[:, 1], rest[:, 2]
    u, v = _spread(identity, rest)
    tone = identity["skin"].astype(np.float32)
    blotch, fine = texture(noise["blotch"], u * 0.55, v * 0.55), texture(noise["pores"], u * 1.1, v * 1.1)
    uneven = 0.055 * identity["blotches"] * blotch[:, None] * np.array([0.45, 1, 1], np.float32)
    colour = tone * (1 + uneven + 0.025 * identity["pores"] * fine[:, None])
    red = tone * np.array([1.10, 0.70, 0.70], np.float32)
    flush = _near(ax, y, 0.44, 6.98, 0.17, 0.15) + 0.9 * _near(ax, y, 0, 6.99, 0.12, 0.09)
    flush = flush * (1 + 0.25 * blotch)
    colour = mix(colour, red, (0.2 + identity["blush"]) * flush + 0.3 * masks[:, 2])
    sallow = tone * np.array([0.98, 1.0, 0.90], np.float32)
    colour = mix(colour, sallow, 0.5 * _near(ax, y, 0, 7.75, 0.5, 0.18))
    under = _near(ax, y, 0.29, 7.13, 0.15, 0.05)
    colour = mix(
        colour, tone * np.array([0.74, 0.62, 0.66], np.float32), (0.25 + 0.45 * identity["old"]) * under
    )
    if identity["freckles"]:
        spots = np.clip((texture(noise["blotch"], u * 2.3, v * 2.3) - 0.8) * 2.5, 0, 1)
        near = np.exp(-((ax / 0.62) ** 4) - ((y - 7.0) / 0.26) ** 2) * (z > 0.8)
        colour = mix(
            colour, tone * np.array([0.62, 0.45, 0.36], np.float32), identity["freckles"] * spots * near
        )
    if identity["old"] > 0.4:
        spots = np.clip((texture(noise["blotch"], u * 0.9 + 0.4, v * 0.9) - 1.5) * 2, 0, 1)
        colour = mix(colour, tone * np.array([0.72, 0.6, 0.52], np.float32), (identity["old"] - 0.4) * spots)
    for at_x, at_y, radius in identity["moles"].tolist():
        spot = np.exp(-((np.hypot(rest[:, 0] - at_x, y - at_y) / radius) ** 4)) * (z > 0.5)
        colour = mix(colour, tone * 0.3, 0.8 * spot)
    lip = tone * np.array([0.84, 0.52, 0.51], np.float32) + np.array([0.02, 0.0, 0.004], np.float32)
    lines = 1 + 0.06 * np.sin(rest[:, 0] * 150 + 2 * blotch)
    colour = mix(colour, lip * lines[:, None], masks[:, 0] * (0.35 + 0.8 * identity["lip_tint"]))
    liner = masks[:, 1] * 0.4 * (0.7 + identity["lash"])
    colour = mix(colour, tone * np.array([0.62, 0.5, 0.5], np.float32), liner)
    return _shaded_by_hair(identity, rest, colour, masks, fine)


def _shaded_by_hair(identity, rest, colour, masks, fine) -> np.ndarray:
    """Skin under brows, beard and scalp hair: darker where short hair hides it."""
    dark = brow_colour(identity)
    y, ax = rest[:, 1], np.abs(rest[:, 0])
    colour = mix(colour, dark, 0.35 * identity["brow"]["dark"] * brow_shape(rest, identity["brow"])[0])
    if identity["beard"]:
        share = beard_mask(rest, identity["beard"]) * (1 - masks[:, 0]) * (1 + 0.12 * fine)
        share = share * (0.3 if identity["beard"] == "stubble" else 0.62)
        colour = mix(colour, np.minimum(identity["hair"] * 0.6, identity["skin"] * 0.4), share)
    line = line_height(azimuth(rest), identity)
    style = identity["style"]
    grow = 1 / (1 + np.exp(-np.clip((y - line - 0.06) / 0.045, -30, 30)))
    grow = grow * ~((ax > 0.76) & (np.abs(y - 7.2) < 0.42)) * (y > 6.5)
    share = grow * {"shaved": 0.5, "buzz": 0.6, "receding": 0.7}.get(style, 0.92)
    return mix(colour, identity["hair"] * 0.7, share * (0.9 + 0.1 * fine))


def skin_relief(identity: dict, photo: dict, rest: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """What to add to unit normals (N×3): pores, unevenness, and the wrinkles of age and expression."""
    noise = noise_textures()
    ax, y = np.abs(rest[:, 0]), rest[:, 1]
    u, v = _spread(identity, rest)
    strength = 0.055 * identity["pores"] * (1 - 0.7 * masks[:, 1])
    relief = np.zeros_like(rest)
    relief[:, 0] = strength * texture(noise["slope_x"], u * 1.1, v * 1.1)
    relief[:, 1] = strength * texture(noise["slope_y"], u * 1.1, v * 1.1)
    relief[:, 0] += 0.025 * texture(noise["blotch"], u * 1.3 + 0.4, v * 1.3)
    old, raised = identity["old"], photo["units"]["browInnerUp"]
    for height in (7.66, 7.75, 7.84):
        off = (y - height - 0.02 * np.cos(5 * ax) - 0.01 * np.sin(17 * rest[:, 0])) / 0.022
        relief[:, 1] += 0.45 * (0.7 * old + 0.5 * raised) * off * np.exp(-(off**2)) * (ax < 0.45)
    fold = (ax - np.interp(y, [6.6, 6.75, 7.02], [0.40, 0.37, 0.24]).astype(np.float32)) / 0.03
    reach = np.clip((y - 6.62) / 0.1, 0, 1) * np.clip((7.05 - y) / 0.1, 0, 1)
    smile = photo["units"]["mouthSmileLeft"]
    relief[:, 0] += np.sign(rest[:, 0]) * (0.4 * old + 0.12 * smile) * fold * np.exp(-(fold**2)) * reach
    crow = _near(ax, y, 0.55, 7.27, 0.07, 0.1) * (0.6 * old + 0.2 * smile)
    relief[:, 1] += 0.5 * crow * np.sin((y - 7.27) * 110 + 40 * (ax - 0.5) * (y - 7.27))
    return relief


def skin_shine(identity: dict, rest: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Strength of reflections: oily on forehead, nose and cheekbones, moist on lips, broken up by pores."""
    noise = noise_textures()
    ax, y = np.abs(rest[:, 0]), rest[:, 1]
    u, v = _spread(identity, rest)
    oil = _near(ax, y, 0, 7.72, 0.35, 0.14) + 1.2 * _near(ax, y, 0, 7.1, 0.07, 0.25)
    oil = oil + 0.7 * _near(ax, y, 0.45, 7.05, 0.16, 0.08) + 0.4 * _near(ax, y, 0, 6.45, 0.12, 0.08)
    broken = np.clip(1 + 0.2 * texture(noise["pores"], u * 1.1, v * 1.1), 0.2, 2)
    shine = 0.024 * identity["shine"] * (0.55 + oil) * broken
    shine = shine * (1 - 0.85 * beard_mask(rest, identity["beard"]))
    return shine * (1 - masks[:, 0]) + 0.05 * masks[:, 0]


def eye_surface(where, view, eyes: list[np.ndarray], ahead: np.ndarray, identity: dict, photo: dict) -> tuple:
    """Colour, normal and the light's reflection (N) of eyeballs centred at `eyes` that look along `ahead`."""
    nearest = np.argmin([np.linalg.norm(where - centre, axis=1) for centre in eyes], 0)
    out = where - np.array(eyes)[nearest]
    normal = out / np.linalg.norm(out, axis=1, keepdims=True)
    off = np.arccos(np.clip(normal @ ahead, -1, 1))
    around = np.arctan2(*(normal - ahead).T[[1, 0]])
    white = np.array([0.60, 0.535, 0.50])
    colour = mix(np.tile(white, (len(where), 1)), np.array([0.42, 0.27, 0.25]), (off - 0.62) / 0.7)
    streaks = 1 + 0.18 * np.sin(around * 23 + 3 * np.sin(around * 7)) * (off > 0.22)
    ring = np.exp(-(((off - 0.5) / 0.09) ** 2))
    inner = 0.45 * np.exp(-(((off - 0.27) / 0.08) ** 2))
    own = identity["eyes"] * ((0.75 - 0.75 * ring + inner) * streaks)[:, None]
    own = own * (0.9 - 1.3 * normal[:, 1:2])
    colour = mix(colour, own, 1 / (1 + np.exp(np.clip((off - 0.52) / 0.025, -30, 30))))
    pupil = 0.19 + 0.04 * (photo["light_name"] == "dim light")
    colour = mix(colour, np.full(3, 0.004), 1 / (1 + np.exp(np.clip((off - pupil) / 0.02, -30, 30))))
    mirrored = 2 * (normal * view).sum(1, keepdims=True) * normal - view
    size = np.cos(np.radians(5 + 4 * photo["softness"]))
    glint = np.clip((mirrored @ photo["key"] - size) / (1 - size) * 3, 0, 1) * (off < 0.6)
    return colour, normal, glint
