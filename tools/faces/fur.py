"""Short hair that grows on the face itself and follows its expressions: brows, lashes, beards."""

import numpy as np

from tools.faces.raster import vertex_normals

STEPS = 4
EYE_CENTRE = np.array([0.31, 7.285, 1.25])


def _logistic(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -40, 40)))


def beard_mask(points: np.ndarray, kind: str | None) -> np.ndarray:
    """How much beard grows at points of the base head, 0-1: jaw, chin and upper lip, not the lips."""
    x, y, z = np.abs(points[:, 0]), points[:, 1], points[:, 2]
    if not kind:
        return np.zeros(len(points))
    upper = np.interp(x, [0, 0.16, 0.26, 0.4, 0.55, 0.7, 0.8], [6.86, 6.84, 6.72, 6.62, 6.72, 6.95, 7.15])
    jaw = _logistic((upper - y) / 0.03)
    throat = _logistic((y - np.interp(z, [0.2, 0.8, 1.3], [6.4, 6.2, 6.12])) / 0.03)
    moustache = np.exp(-(((y - (6.85 - 0.25 * x**2)) / 0.03) ** 2)) * np.exp(-((x / 0.24) ** 6))
    mask = np.maximum(jaw * throat, moustache) * _logistic((z - 0.42) / 0.04)
    return mask * np.exp(-((x / 0.25) ** 4)) if kind == "goatee" else mask


def brow_shape(points: np.ndarray, brow: dict) -> tuple[np.ndarray, np.ndarray]:
    """Density of a person's brows at points of the base head (0-1), and the position along the brow (0-1)."""
    x, y, z = np.abs(points[:, 0]), points[:, 1], points[:, 2]
    along = (x - 0.13) / 0.42
    middle = 7.485 + brow["lift"] + brow["arch"] * (1 - ((along - 0.55) / 0.55) ** 2) - 0.035 * along**2
    breadth = brow["thick"] * np.interp(along, [0, 0.15, 0.6, 1.0], [0.8, 1.05, 0.85, 0.3])
    density = np.exp(-(np.abs((y - middle) / breadth) ** 2.5)) * (z > 0.85)
    return density * _logistic((along - 0.03) / 0.03) * _logistic((0.97 - along) / 0.03), along


def sow(vertices, triangles, density, count: int, rng) -> tuple[np.ndarray, np.ndarray]:
    """Random places on a mesh: corner vertices (n×3) and weights, as dense as `density(points)` (0-1)."""
    corners = vertices[triangles]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    likely = np.max([density(corners[:, k]) for k in range(3)] + [density(corners.mean(1))], 0)
    area = area * (likely > 0.01)
    chosen = rng.choice(len(triangles), 12 * count, p=area / area.sum())
    weights = rng.dirichlet([1, 1, 1], len(chosen))
    places = np.einsum("nk,nkc->nc", weights, corners[chosen])
    kept = np.flatnonzero(rng.random(len(chosen)) < density(places))[:count]
    return triangles[chosen[kept]], weights[kept].astype(np.float32)


def _bend(first: np.ndarray, last: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Offsets (n×STEPS×3) of short hairs that leave along `first` and turn towards `last`."""
    t = np.linspace(0, 1, STEPS)[None, :, None]
    way = first[:, None] * t + (last - first)[:, None] * t**2 / 2
    return way / (np.linalg.norm(way[:, -1:], axis=-1, keepdims=True) + 1e-9) * length[:, None, None]


def _bundle(corners, weights, offsets, colour, width: float, alpha: float) -> dict:
    count = len(corners)
    colour = np.broadcast_to(np.asarray(colour, np.float32), (count, 3))
    return dict(
        corners=corners,
        weights=weights,
        offsets=offsets.astype(np.float32),
        colour=colour,
        width=np.full(count, width, np.float32),
        alpha=np.full(count, alpha, np.float32),
    )


def brows(identity: dict, head, rng) -> dict:
    """Brow hairs: up and out near the nose, outwards along the arch, down at the tail."""
    brow = identity["brow"]
    front = head.skin_triangles[head.vertices[head.skin_triangles][..., 2].min(1) > 0.8]
    count = int(300 * brow["dense"])
    corners, weights = sow(head.vertices, front, lambda p: brow_shape(p, brow)[0], count, rng)
    places = np.einsum("nk,nkc->nc", weights, head.vertices[corners])
    along, side = brow_shape(places, brow)[1], np.sign(places[:, 0])
    up = np.interp(along, [0, 0.2, 0.6, 1], [1.3, 0.6, 0.1, -0.6]) + rng.normal(0, 0.12, len(along))
    out = np.interp(along, [0, 0.2, 1], [0.35, 1, 1])
    first = np.stack([side * out, up, np.full(len(along), 0.35)], 1)
    last = np.stack([side * 1.0, up - 0.5, np.full(len(along), -0.1)], 1)
    length = rng.uniform(0.06, 0.1, len(along)) * (1.1 - 0.3 * along)
    colour = brow_colour(identity) * rng.uniform(0.8, 1.2, (len(along), 1))
    return _bundle(corners, weights, _bend(first, last, length), colour, 0.009, 0.65 * brow["dark"])


def brow_colour(identity: dict) -> np.ndarray:
    """The hair's own colour, darker on fair hair, and always darker than the skin."""
    return np.minimum(identity["hair"] * 0.62, identity["skin"] * 0.35)


def lashes(identity: dict, head, rng) -> dict:
    """Lashes of both lids, curving away from the eye: the upper ones long, the lower ones short."""
    corners, weights = head.lids
    chosen = rng.integers(0, len(corners), 180)
    corners, weights = corners[chosen], weights[chosen]
    places = np.einsum("nk,nkc->nc", weights, head.vertices[corners])
    side = np.sign(places[:, :1])
    away = places - EYE_CENTRE * np.concatenate([side, np.ones_like(side), np.ones_like(side)], 1)
    away[:, 0] *= 1.6
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    upper = np.where(places[:, 1] > EYE_CENTRE[1] - 0.02, 1.0, -0.55)
    length = rng.uniform(0.03, 0.05, len(places)) * (0.7 + 0.8 * identity["lash"]) * np.abs(upper)
    bend = np.stack([0 * upper, upper, 0 * upper], 1)
    offsets = _bend(away + 0.1 * bend, away + 1.6 * bend, length)
    dark = np.minimum(brow_colour(identity) * 0.4, 0.01)
    return _bundle(corners, weights, offsets, dark, 0.008, 0.5 + 0.4 * identity["lash"])


def beard(identity: dict, head, rng) -> dict | None:
    """Beard hairs with a moustache that parts; stubble is short and thin."""
    kind = identity["beard"]
    if not kind:
        return None
    lips = head.lips

    def density(points):
        return beard_mask(points, kind)

    jaw = head.skin_triangles[lips[head.skin_triangles].max(1) < 0.35]
    count = 2200 if kind == "goatee" else 4200
    corners, weights = sow(head.vertices, jaw, density, count, rng)
    places = np.einsum("nk,nkc->nc", weights, head.vertices[corners])
    normals = vertex_normals(head.vertices, head.triangles)
    out = np.einsum("nk,nkc->nc", weights, normals[corners])
    moustache = ((places[:, 1] > 6.8) & (np.abs(places[:, 0]) < 0.3))[:, None]
    side = np.sign(places[:, :1])
    down = np.where(moustache, np.concatenate([side * 0.9, -0.6 + 0 * side, 0 * side], 1), [0, -1.0, 0.1])
    first = 0.6 * out + down + 0.25 * rng.normal(0, 1, places.shape)
    last = 0.2 * out + down + 0.35 * rng.normal(0, 1, places.shape)
    longest = 0.022 if kind == "stubble" else 0.13 * identity["beard_length"]
    below = np.clip((6.75 - places[:, 1]) / 0.4, 0, 1)
    length = (
        longest
        * rng.uniform(0.6, 1.1, len(places))
        * (0.55 + 0.6 * below)
        * np.where(moustache[:, 0], 0.6, 1)
    )
    dark = np.minimum(identity["hair"] * 0.75, identity["skin"] * 0.5)
    grey = (rng.random(len(places)) < identity["grey"])[:, None]
    colour = np.where(grey, 0.4, dark * rng.uniform(0.7, 1.25, (len(places), 1)))
    alpha = 0.4 if kind == "stubble" else 0.55
    return _bundle(corners, weights, _bend(first, last, length), colour, 0.009, alpha)


def fur(identity: dict, head) -> dict:
    """All of a person's short hair in one bundle: where it is rooted, its offsets, colour, width, opacity."""
    rng = np.random.default_rng([16, identity["seed"]])
    parts = [part(identity, head, rng) for part in (brows, lashes, beard)]
    parts = [part for part in parts if part is not None]
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
