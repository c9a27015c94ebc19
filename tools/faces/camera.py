"""The camera and what lies behind the person: scenery out of focus, lens, white balance, grain."""

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter


def _blobs(rng, wide: int, count: int, sharp: bool) -> np.ndarray:
    """Discs of light out of focus, as a lens shows lamps or leaves (wide×wide, about 0-1)."""
    line = np.linspace(0, 1, wide)
    picture = np.zeros((wide, wide))
    for _ in range(count):
        x, y, radius = rng.uniform(-0.05, 1.05), rng.uniform(-0.05, 0.95), rng.uniform(0.03, 0.1)
        off = np.hypot(line[None] - x, line[:, None] - y) / radius
        disc = 1 / (1 + np.exp(np.minimum((off - 1) * (25 if sharp else 6), 50)))
        picture += rng.uniform(0.25, 1.0) * disc * (0.8 + 0.3 * np.minimum(off, 1))
    return picture


def _enlarge(picture: np.ndarray, wide: int) -> np.ndarray:
    return np.asarray(Image.fromarray(picture.astype(np.float32)).resize((wide, wide), Image.BICUBIC))


def _scenery(kind: str, rng, wide: int) -> np.ndarray:
    """Relative brightness of what lies behind a person (wide×wide, around 1)."""
    line = np.linspace(0, 1, wide)
    level = np.ones((wide, wide))
    if kind == "blur":
        level += 0.16 * gaussian_filter(rng.normal(0, 1, (wide, wide)), wide / 9, mode="wrap") * wide / 5
    elif kind == "bokeh":
        level = 0.72 + 0.5 * _blobs(rng, wide, int(rng.integers(8, 26)), rng.random() < 0.6)
    elif kind == "lines":  # panels, curtains, shelves
        edges = np.cumsum(rng.uniform(0.05, 0.3, 24)) - rng.uniform(0, 0.3)
        bands = rng.uniform(0.78, 1.18, 25)[np.searchsorted(edges, line)]
        tilt = bands[None] if rng.random() < 0.7 else bands[:, None]
        level = gaussian_filter(level * tilt, wide * rng.uniform(0.008, 0.03))
    elif kind == "shade":  # a window's light or a shadow across the wall
        slope, place = rng.uniform(-1.5, 1.5), rng.uniform(0.2, 0.8)
        edge = (line[None] - place + slope * (line[:, None] - 0.5)) / rng.uniform(0.03, 0.12)
        level = 0.82 + 0.32 / (1 + np.exp(np.clip(edge, -30, 30)))
    return level


def backdrop(photo: dict, wide: int) -> np.ndarray:
    """What lies behind the person (wide×wide×3, linear light), in the photo's background colour."""
    rng = np.random.default_rng([15, photo["seed"], int(photo["key"][0] * 1e6) % (1 << 30)])
    coarse = gaussian_filter(rng.normal(0, 1, (12, 12)), 1.2)
    soft = _enlarge(coarse / coarse.std(), 64)
    ramp = np.linspace(-1, 1, 64)
    level = 0.8 * (1 - 0.14 * ramp[:, None] + 0.16 * photo["key"][0] * ramp[None] + 0.06 * soft)
    level = level * _scenery(photo["scenery"], rng, 64)
    level = level * (0.62 + 0.38 * min(photo["key_power"] + photo["fill"], 2.2) / 2.2)
    tint = np.stack([gaussian_filter(rng.normal(0, 1, (64, 64)), 12) * 12 for _ in range(3)], -1)
    colour = photo["background"] * (1 + 0.04 * tint) * np.clip(level, 0.25, 1.6)[..., None]
    return np.stack([_enlarge(colour[..., k], wide) for k in range(3)], -1)


def develop(picture: np.ndarray, photo: dict, size: int, seed: int) -> np.ndarray:
    """From linear light (oversampled) to an sRGB photo: lens, white balance, tone curve, grain."""
    oversample = len(picture) // size
    blur = photo["blur"] * size / 128 * oversample
    picture = gaussian_filter(picture.astype(np.float32), (blur, blur, 0), truncate=2.5)
    picture = picture.reshape(size, oversample, size, oversample, 3).mean((1, 3))
    line = np.linspace(-1, 1, size)
    picture *= (1 - photo["vignette"] * 0.5 * (line[:, None] ** 2 + line[None] ** 2))[..., None]
    warm, green = photo["balance"]
    picture *= np.array([1 + warm, 1 + green, 1 - warm]) * photo["exposure"] * photo["level"]
    picture = (1 - np.exp(-1.15 * picture)) / (1 - np.exp(-1.15 * 1.7))
    grey = picture.mean(-1, keepdims=True)
    picture = np.clip(grey + photo["saturation"] * (picture - grey), 0, 1)
    rng = np.random.default_rng([14, seed, photo["seed"]])
    noise = rng.normal(0, 1, (size, size, 1)) + 0.5 * rng.normal(0, 1, (size, size, 3))
    if size > 128:  # the sensor is the same: its grain has a size of its own
        noise = np.stack([gaussian_filter(noise[..., k], 0.5 * size / 256) for k in range(3)], -1)
    shown = picture ** (1 / 2.2)
    curve = shown + 0.25 * (photo["contrast"] - 1) * np.sin(2 * np.pi * (shown - 0.5))
    grain = 0.0045 * photo["grain"] * (1.3 - 0.8 * shown) * noise
    return np.rint(255 * np.clip(curve + grain, 0, 1)).astype(np.uint8)
