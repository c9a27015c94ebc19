"""Pictures without a subject that train a denoiser, drawn from a seed: textured dead leaves and 1/f fields.

Dead leaves are opaque shapes that fall upon each other, with sizes r of density ∝ r⁻³. They have the edges,
occlusions and scale-free statistics of photos (Lee, Mumford and Huang, "Occlusion models for natural images",
International Journal of Computer Vision 41, 2001). A 1/f field has the photos' spectrum and no edges.
"""

import math

import numpy as np

SIDE = 128


def field(
    rng: np.random.Generator, side: int = SIDE, exponent: float = 1.0, stretch: float = 1.0, turn: float = 0.0
) -> np.ndarray:
    """Gaussian noise whose amplitude falls like 1/f^exponent: side×side float32, mean 0, variance 1.

    Its power spectrum falls like 1/f^(2·exponent); photos have an exponent near 1.
    stretch: length of its structures along `turn` (radians), as a multiple of their width; large for hair.
    """
    fy, fx = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]
    along, across = fx * np.cos(turn) + fy * np.sin(turn), fy * np.cos(turn) - fx * np.sin(turn)
    f = np.hypot(along * stretch, across)
    f[0, 0] = np.inf  # no mean
    spectrum = np.fft.rfft2(rng.standard_normal((side, side), dtype=np.float32)) / f**exponent
    noise = np.fft.irfft2(spectrum, (side, side))
    return (noise / noise.std()).astype(np.float32)


def colour(rng: np.random.Generator, saturation: float) -> np.ndarray:
    """A random RGB: any grey level, moved by a normal step of size `saturation` per channel."""
    return np.float32(rng.uniform(0, 1) + saturation * rng.standard_normal(3))


def outline(rng: np.random.Generator, y: np.ndarray, x: np.ndarray, r: float) -> np.ndarray:
    """Signed distance in pixels, about, to a random shape of radius r around 0; negative inside.

    y, x: offsets from the centre, H×1 and 1×W. An ellipse, a convex polygon, a wavy blob or a bent strip.
    """
    kind, turn = rng.random(), rng.uniform(0, 2 * np.pi)
    cos, sin = math.cos(turn), math.sin(turn)  # Python's numbers: numpy's would make float64 of all pixels
    u, v = x * cos + y * sin, y * cos - x * sin
    if kind < 0.35:
        squeeze = rng.uniform(0.35, 1)
        return np.hypot(u, v / squeeze) * squeeze - r * squeeze
    if kind < 0.65:
        angles = rng.uniform(0, 2 * np.pi, rng.integers(3, 7)).tolist()
        sides = [u * math.cos(a) + v * math.sin(a) - r * rng.uniform(0.4, 1) for a in angles]
        return np.maximum(np.maximum.reduce(sides), np.hypot(u, v) - r)
    if kind < 0.8:
        theta, lobes = np.arctan2(v, u), int(rng.integers(2, 6))
        return np.hypot(u, v) - r * (0.75 + 0.25 * np.cos(lobes * theta))
    bent = v + rng.normal(0, 0.3) * u * u / r
    return np.maximum(np.abs(bent) - r * rng.uniform(0.03, 0.3), np.hypot(u, v) - r)


def filling(rng: np.random.Generator, y: np.ndarray, x: np.ndarray, fields: np.ndarray, tint: float):
    """The colours of a leaf, H×W×3 or 3: flat, a gradient, a grating, or a piece of one of `fields`."""
    base, kind = colour(rng, tint), rng.random()
    if kind < 0.15:
        return base
    along = colour(rng, tint) - np.float32(rng.uniform(0, 1))
    if kind < 0.35:
        angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 4) * (y.size + x.size)
        wave = (x * math.cos(angle) + y * math.sin(angle)) / length
    elif kind < 0.45:
        angle, period = rng.uniform(0, 2 * np.pi), math.exp(rng.uniform(math.log(2.5), math.log(24)))
        wave = np.sin((x * math.cos(angle) + y * math.sin(angle)) * (2 * np.pi / period))
        wave = np.clip(wave * rng.uniform(0.5, 4), -1, 1) * rng.uniform(0.02, 0.4)
    else:
        height, width, side = y.size, x.size, fields.shape[1]
        top, left = rng.integers(side - height + 1), rng.integers(side - width + 1)
        wave = fields[rng.integers(len(fields)), top : top + height, left : left + width]
        wave = wave * math.exp(rng.uniform(math.log(0.02), math.log(0.5)))
    return base + wave[..., None] * along


def dead_leaves(rng: np.random.Generator, side: int = SIDE) -> np.ndarray:
    """Leaves on a textured ground, seen by a camera: side×side×3 float32 in [0, 1]."""
    fields = [field(rng, side, exponent) for exponent in rng.uniform(0.1, 1.8, 2)]
    fields += [field(rng, side, rng.uniform(0.5, 1.5), rng.uniform(3, 15), rng.uniform(0, np.pi))]
    fields, tint = np.stack(fields), float(rng.choice([0.02, 0.07, 0.2], p=[0.3, 0.5, 0.2]))
    smallest, largest = rng.uniform(1.5, 8), rng.uniform(0.15, 0.7) * side
    softness = rng.uniform(1, 5) if rng.random() < 0.5 else 1.0
    y, x = np.mgrid[:side, :side].astype(np.float32)
    y, x = y[:, :1], x[:1]
    picture = np.empty((side, side, 3), np.float32)
    picture[:] = filling(rng, y, x, fields, tint)
    for _ in range(rng.integers(20, 160)):
        # Density ∝ r⁻³ between the two sizes: r⁻² is uniform.
        r = rng.uniform(largest**-2, smallest**-2) ** -0.5
        r = max(r, rng.uniform(0, 0.25) * side) if rng.random() < 0.15 else r  # some large ones for edges
        cy, cx = rng.uniform(-0.3 * r, side + 0.3 * r, 2)
        rows = slice(max(0, int(cy - r - 3)), min(side, int(cy + r + 4)))
        columns = slice(max(0, int(cx - r - 3)), min(side, int(cx + r + 4)))
        dy, dx = y[rows] - np.float32(cy), x[:, columns] - np.float32(cx)
        if dy.size == 0 or dx.size == 0:
            continue
        cover = np.clip(0.5 - outline(rng, dy, dx, r) / softness, 0, 1)[..., None]
        piece = picture[rows, columns]
        piece += cover * (filling(rng, dy, dx, fields, tint) - piece)
    return camera(rng, picture)


def clouds(rng: np.random.Generator, side: int = SIDE) -> np.ndarray:
    """A coloured 1/f picture, seen by a camera: side×side×3 float32 in [0, 1]."""
    exponents = rng.uniform(0.8, 1.6) + rng.uniform(0, 0.3, 3)
    layers = [field(rng, side, exponent) for exponent in exponents]
    sizes = rng.uniform(0.03, 0.2) * np.array([1, *rng.uniform(0, 0.5, 2)])
    axes = np.array([[1, 1, 1], [1, 0, -1], [-0.5, 1, -0.5]])  # grey, and two axes of colour
    picture = sum(s * layer[..., None] * axis for s, layer, axis in zip(sizes, layers, axes, strict=True))
    return camera(rng, (picture + colour(rng, 0.1)).astype(np.float32))


def camera(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    """White balance, exposure and gamma, all random: H×W×3 float32 in [0, 1]."""
    balance = np.exp(rng.normal(0, 0.08, 3) + rng.normal(0, 0.2))
    return np.clip(np.clip(picture, 0, 1) ** np.float32(rng.uniform(0.6, 1.7)) * np.float32(balance), 0, 1)


def draw(rng: np.random.Generator, side: int = SIDE) -> np.ndarray:
    """A picture, side×side×3 float32 in [0, 1]: dead leaves in four of five draws, else a 1/f field."""
    return dead_leaves(rng, side) if rng.random() < 0.8 else clouds(rng, side)
