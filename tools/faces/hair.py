"""Hairstyles: strands that grow from the scalp of the base head and move along with a person's own head.

A style says which way the hair flows, how long it is, how far it stands off and how it curls. Roots thin
out towards the hairline, so that no edge is hard.
"""

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from tools.faces.raster import cast
from tools.faces.strands import carry, grow

CENTRE = np.array([0.0, 7.45, 0.42])
COLUMNS, ROWS = 168, 76
POLAR_STEP = np.radians(150) / (ROWS - 1)
LINE_AZIMUTH = np.radians([0, 22, 38, 50, 60, 68, 76, 84, 100, 112, 125, 145, 180])
LINE_HEIGHT = np.array([7.98, 7.96, 7.88, 7.74, 7.54, 7.3, 7.3, 7.56, 7.58, 7.2, 6.95, 6.7, 6.62])
"""Where hair begins on the base head: height (dm) against the azimuth around the head, 0 in front."""
WHORL = np.array([0.08, 0.75, -0.65])
BUN, TAIL = np.array([0.0, 0.93, -0.66]), np.array([0.0, 0.15, -0.95])
SHORT = dict(
    gravity=0.3, lay=4.0, guard=0, stop=4.0, cover=False, wave=(0.006, 0.5), mess=0.12, clump=0.35, steps=8
)
LONG = dict(
    gravity=6.0, lay=3.0, guard=60, stop=5.0, cover=True, wave=(0.012, 0.9), mess=0.06, clump=0.45, steps=18
)
LONG |= dict(top=3.0, sides=3.0, lift=0.2)
STYLES = dict(
    buzz=SHORT | dict(flow="whorl", top=0.07, sides=0.05, lift=0.9, clear=0.015, clump=0.0, steps=4),
    crop=SHORT | dict(flow="whorl", top=0.3, sides=0.12, lift=0.5, clear=0.07, lay=5.0),
    parted=SHORT | dict(flow="part", top=0.8, sides=0.2, lift=0.7, clear=0.13, clump=0.5, lay=6.0),
    swept=SHORT | dict(flow="back", top=0.85, sides=0.2, lift=0.9, clear=0.17, clump=0.5, lay=5.0),
    tousled=SHORT | dict(flow="whorl", top=0.5, sides=0.24, lift=0.8, clear=0.16, mess=0.4, wave=(0.03, 0.4)),
    receding=SHORT | dict(flow="whorl", top=0.22, sides=0.12, lift=0.35, clear=0.03),
    pixie=SHORT | dict(flow="part", top=0.75, sides=0.4, lift=0.3, clear=0.1, gravity=1.5, clump=0.5),
    bob=LONG | dict(flow="part", clear=0.16, stop=6.42),
    long=LONG | dict(flow="part", clear=0.13),
    wavy=LONG | dict(flow="part", clear=0.2, wave=(0.07, 0.75), clump=0.6, steps=26),
    ringlets=LONG
    | dict(flow="part", clear=0.2, wave=(0.05, 0.36), clump=0.7, stop=5.75, steps=36, mess=0.2, sides=2.6),
    curls=SHORT
    | dict(flow="whorl", top=0.75, sides=0.35, lift=1.0, clear=0.26, gravity=1.0, lay=1.5, wave=(0.06, 0.26))
    | dict(clump=0.6, mess=0.5, steps=24),
    afro=SHORT
    | dict(flow="out", top=0.62, sides=0.5, lift=1.0, clear=0.0, gravity=0.1, lay=0.0, wave=(0.03, 0.13))
    | dict(clump=0.25, mess=0.35, steps=24),
    locs=LONG | dict(flow="part", clear=0.2, stop=5.7, clump=0.95, wave=(0.02, 0.5), mess=0.2),
    bun=LONG | dict(flow="bun", clear=0.05, gravity=0.0, lay=8.0, guard=0, cover=False, steps=14),
    ponytail=LONG | dict(flow="tail", clear=0.05, gravity=0.0, lay=8.0, guard=0, cover=False, steps=14),
)
"""Lengths, clearances and wave (radius, length) in dm; lift, mess and clump are shares; guard in degrees."""


def azimuth(points: np.ndarray) -> np.ndarray:
    """Angle around the vertical axis of the head, 0 in front, ±π behind."""
    return np.arctan2(points[..., 0], points[..., 2] - float(CENTRE[2]))


def line_height(angle: np.ndarray, identity: dict) -> np.ndarray:
    """Height of a person's hairline at an azimuth (dm on the base head)."""
    side = np.abs(angle)
    height = np.interp(side, LINE_AZIMUTH, LINE_HEIGHT).astype(angle.dtype)
    front = np.exp(-((side / 0.75) ** 4))
    temples = np.exp(-(((side - 0.62) / 0.22) ** 2))
    height = height + front * identity["hairline"] + temples * 0.07 * identity["male"]
    if identity["style"] == "receding":
        height = height + front * 0.2 + temples * 0.2
    return height


class Scalp:
    """The base head as seen from its centre: a radius for every direction, with and without the ears."""

    def __init__(self, vertices: np.ndarray, triangles: np.ndarray):
        ear = (
            (np.abs(vertices[:, 0]) > 0.7)
            & (np.abs(vertices[:, 1] - 7.2) < 0.45)
            & (np.abs(vertices[:, 2] - 0.4) < 0.45)
        )
        polar = np.arange(ROWS) * POLAR_STEP
        angle = np.linspace(-np.pi, np.pi, COLUMNS, endpoint=False)
        p, a = np.meshgrid(polar, angle, indexing="ij")
        self.directions = np.stack([np.sin(p) * np.sin(a), np.cos(p), np.sin(p) * np.cos(a)], -1)
        self.radius = self._radii(vertices, triangles[~ear[triangles].any(1)])
        self.covered = np.maximum(self.radius, gaussian_filter(self._radii(vertices, triangles), 1.5))
        skin = np.unique(triangles)
        surface = CENTRE + self.radius[..., None] * self.directions
        distance, near = cKDTree(vertices[skin]).query(surface.reshape(-1, 3), k=8)
        weights = 1 / (distance + 0.06)
        self.near, self.weights = skin[near], (weights / weights.sum(1, keepdims=True)).astype(np.float32)

    def _radii(self, vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
        """Distance from the centre to the surface in every direction, gaps filled along each row."""
        corners = vertices[triangles[:, 0]].astype(float)
        edge1, edge2 = vertices[triangles[:, 1]] - corners, vertices[triangles[:, 2]] - corners
        found = cast(CENTRE, self.directions.reshape(-1, 3), corners, edge1, edge2, 9.0).astype(float)
        found = found.reshape(self.directions.shape[:2])
        for row in found:
            good = row <= 3
            row[~good] = np.interp(np.flatnonzero(~good), np.flatnonzero(good), row[good], period=COLUMNS)
        return gaussian_filter(found, (1.2, 1.5), mode=("nearest", "wrap")).astype(np.float32)

    def shift(self, moved: np.ndarray) -> np.ndarray:
        """Displacement of the surface (3×ROWS×COLUMNS) on a head whose vertices are displaced by `moved`."""
        mean = np.einsum("nk,nkc->nc", self.weights, moved[self.near].astype(np.float32))
        grid = np.moveaxis(mean.reshape(ROWS, COLUMNS, 3), -1, 0)
        return np.stack([gaussian_filter(part, 1.0, mode=("nearest", "wrap")) for part in grid])

    def carry(self, points: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """Points near the base head (…×3), moved along with a person's head."""
        flat = np.ascontiguousarray(points, np.float32).reshape(-1, 3)
        return carry(flat, shift, POLAR_STEP, CENTRE).reshape(points.shape)


def _roots(identity: dict, scalp: Scalp, rng, count: int) -> np.ndarray:
    """Roots (relative to the head's centre), evenly strewn above the hairline and thinning out near it."""
    cosine, angle = rng.uniform(np.cos(np.radians(135)), 1, 4 * count), rng.uniform(-np.pi, np.pi, 4 * count)
    sine = np.sqrt(1 - cosine**2)
    way = np.stack([sine * np.sin(angle), cosine, sine * np.cos(angle)], 1)
    row = np.clip(np.arccos(cosine) / POLAR_STEP, 0, ROWS - 1.001).astype(int)
    roots = way * scalp.radius[row, ((angle / (2 * np.pi) + 0.5) * COLUMNS).astype(int) % COLUMNS][:, None]
    above = roots[:, 1] + CENTRE[1] - line_height(angle, identity)
    wobble = 0.02 * np.sin(angle * 23 + identity["seed"]) + 0.015 * np.sin(angle * 57)
    keep = above + wobble > rng.exponential(0.035, len(above))
    return roots[keep][:count]


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / (np.linalg.norm(vectors, axis=-1, keepdims=True) + 1e-9)


def _flow(style: dict, identity: dict, roots: np.ndarray, rng) -> np.ndarray:
    """Unit direction in which each strand leaves its root."""
    out = _unit(roots)
    x, y, z = roots.T
    away = -np.broadcast_to(_unit(WHORL), roots.shape)
    wish = away
    if style["flow"] == "part":
        behind = np.clip((-z - 0.1) / 0.3, 0, 1)[:, None]
        low = np.clip((0.75 - y) / 0.4, 0, 1)[:, None]
        long = style["cover"]
        across = np.tanh((x - identity["part"] * (1 - 0.5 * long)) / 0.05)
        combed = np.stack([across, np.full(len(x), -0.2), np.where(z > 0.3, -0.5 if long else 0.35, 0)], 1)
        wish = combed + (1.5 * away - combed) * np.maximum(behind, low)
    elif style["flow"] == "back":
        side = np.clip((0.6 - y) / 0.3, 0, 1)[:, None]
        wish = np.array([0, 0.15, -1.0]) + side * (away - np.array([0, 0, -0.5]))
    elif style["flow"] in ("bun", "tail"):
        wish = (BUN if style["flow"] == "bun" else TAIL) - roots
        wish[:, 1] += 1.5 * np.clip(z, 0, None)  # combed back over the top
    wish = wish + style["mess"] * rng.normal(0, 1, roots.shape)
    tangent = _unit(wish - (wish * out).sum(1, keepdims=True) * out)
    lift = style["lift"] * (0.6 + 0.4 * np.clip(y / 0.9, 0, 1)) * rng.uniform(0.7, 1.2, len(y))
    if style["flow"] == "out":
        return _unit(out + 0.35 * rng.normal(0, 1, roots.shape))
    return _unit(tangent + lift[:, None] * out)


def _lengths(style: dict, identity: dict, roots: np.ndarray, rng) -> np.ndarray:
    """Length of every strand (dm): top against sides, shorter at the lowest hairline, never all the same."""
    share = np.clip((roots[:, 1] - 0.3) / 0.4, 0, 1)
    share = share * share * (3 - 2 * share)
    length = style["sides"] + (style["top"] - style["sides"]) * share
    if style["flow"] in ("bun", "tail"):
        knot = BUN if style["flow"] == "bun" else TAIL
        turn = np.arccos(np.clip((_unit(roots) * _unit(knot)).sum(1), -1, 1))
        return 0.95 * turn * (np.linalg.norm(roots, axis=1) + 0.05) + 0.02
    if not style["cover"]:
        above = roots[:, 1] + CENTRE[1] - line_height(np.arctan2(roots[:, 0], roots[:, 2]), identity)
        length = length * np.clip(0.35 + above / 0.35, 0.3, 1)
        length = length * (0.75 + 0.25 * identity["volume"])
    return length * rng.uniform(0.75, 1.08, len(roots))


def _curl(
    strands: np.ndarray, wave: tuple[float, float], length: np.ndarray, phase: np.ndarray
) -> np.ndarray:
    """Wind strands into helices of a radius and wavelength (dm); straight at the root."""
    count, steps, _ = strands.shape
    ahead = _unit(np.gradient(strands, axis=1))
    one = _unit(np.cross(ahead, np.array([0.3, 0.2, 1.0], np.float32)))
    two = np.cross(ahead, one)
    run = np.linspace(0, 1, steps, dtype=np.float32) * length[:, None].astype(np.float32)
    radius = (
        wave[0] * np.minimum(run / (1.2 * wave[1]), 1) * (1 + 0.35 * np.sin(3 * phase[:, None] + 2 * run))
    )
    turn = 2 * np.pi * run / wave[1] + phase[:, None]
    return strands + radius[..., None] * (np.cos(turn)[..., None] * one + np.sin(turn)[..., None] * two)


def _clump(strands: np.ndarray, roots: np.ndarray, share: float, rng) -> tuple[np.ndarray, np.ndarray]:
    """Draw strands towards the tip of the nearest lock; also returns every strand's lock."""
    guides = rng.choice(len(strands), max(len(strands) // 26, 1), replace=False)
    lock = cKDTree(roots[guides]).query(roots)[1]
    pull = share * np.linspace(0, 1, strands.shape[1], dtype=np.float32) ** 1.2
    tips = strands[guides[lock]] + 0.25 * (strands[:, :1] - strands[guides[lock]][:, :1])
    return strands + pull[None, :, None] * (tips - strands), lock


def _knot(style: dict, rng, count: int, steps: int) -> np.ndarray:
    """The bun (arcs around a ball) or the tail (a bundle over one shoulder); from the head's centre."""
    t = np.linspace(0, 1, steps)
    if style["flow"] == "bun":
        axis = _unit(rng.normal(0, [0.5, 1.0, 0.5], (count, 3)))
        one = _unit(np.cross(axis, rng.normal(0, 1, (count, 3))))
        two = np.cross(axis, one)
        turn = rng.uniform(0, 6.28, count)[:, None] + 2.2 * t[None]
        ring = np.cos(turn)[..., None] * one[:, None] + np.sin(turn)[..., None] * two[:, None]
        high = rng.uniform(-0.6, 0.6, count)[:, None, None] * axis[:, None]
        radius = rng.uniform(0.24, 0.32, count)[:, None, None]
        return BUN * 1.12 + radius * _unit(ring + high) * np.array([1, 0.85, 1])
    side = rng.choice([-1, 1])
    path = np.array([TAIL, TAIL * 1.2 + [side * 0.2, -0.3, 0], [side * 0.62, -1.0, -0.1]])
    path = np.concatenate([path, [[side * 0.72, -1.6, 0.55], [side * 0.6, -2.6, 0.75]]])
    where = np.stack([np.interp(t, np.linspace(0, 1, 5), part) for part in path.T], 1)
    where = gaussian_filter(where, (steps / 14, 0), mode="nearest")
    thick = 0.05 + 0.13 * np.sin(np.pi * np.minimum(t * 1.2 + 0.1, 1.0)) ** 0.7
    return where + rng.normal(0, 0.6, (count, 1, 3)) * thick[:, None] * rng.uniform(0.6, 1.1, (count, 1, 1))


def _colours(identity: dict, count: int, lock: np.ndarray, rng) -> np.ndarray:
    """Colour of every strand: its lock's shade, its own, and some grey ones."""
    own = 0.10 * rng.normal(0, 1, count) + 0.14 * rng.normal(0, 1, lock.max() + 1)[lock]
    shades = identity["hair"] * np.clip(1 + own, 0.5, 1.6)[:, None]
    warm = 1 + 0.06 * rng.normal(0, 1, (count, 1)) * np.array([1, 0, -1])
    grey = rng.random(count) < identity["grey"]
    shades = shades * warm
    shades = np.where(grey[:, None], 0.45 * shades + 0.15, shades)
    return shades.astype(np.float32)


def hair(identity: dict, scalp: Scalp, count: int = 6000) -> dict | None:
    """Strands of a hairstyle on the base head, colours, widths (dm) and opacities; None for a shaved head."""
    if identity["style"] == "shaved":
        return None
    style, rng = STYLES[identity["style"]], np.random.default_rng([13, identity["seed"]])
    roots = _roots(identity, scalp, rng, count)
    heading, length = _flow(style, identity, roots, rng), _lengths(style, identity, roots, rng)
    n = len(roots)
    stop = style["stop"] - CENTRE[1] + rng.normal(0, 0.05, n) + 0.1 * (identity["volume"] - 1)
    guard = np.full(n, np.radians(style["guard"])) * rng.uniform(0.93, 1.07, n)
    gravity = np.full(n, style["gravity"])
    turn = np.abs(np.arctan2(roots[:, 0], roots[:, 2]))
    if style["cover"] and identity["bangs"] and identity["style"] not in ("locs", "ringlets"):
        fringe = (turn < np.radians(48)) & (roots[:, 1] > 0.4) & (roots[:, 2] > 0.38)
        sweep = -3 * identity["part"] * (identity["grain"] > 1)
        heading[fringe] = _unit(np.array([sweep, 0.1, 1.0]) + 0.15 * heading[fringe])
        length[fringe & (rng.random(n) < 0.5)] = 0
        stop[fringe], guard[fringe] = 0.2 + rng.normal(0, 0.06, fringe.sum()) - 0.1 * turn[fringe] ** 2, 0
    grid = scalp.covered if style["cover"] and not identity["tucked"] else scalp.radius
    if identity["tucked"] and style["cover"]:
        guard = guard + np.radians(30) * (stop < 0)
    clearance = style["clear"] * identity["volume"] * rng.uniform(0.1, 1, n) ** 0.7
    steps = style["steps"]
    strands = grow(
        roots, heading, length, gravity, style["lay"], clearance, guard, stop, grid, POLAR_STEP, steps
    )
    strands, lock = _clump(strands, roots, style["clump"], rng)
    phase = rng.uniform(0, 6.28, lock.max() + 1)[lock] + rng.normal(0, 0.5, n)
    strands = _curl(strands, (style["wave"][0] * identity["grain"], style["wave"][1]), length, phase)
    if style["flow"] in ("bun", "tail"):
        strands = np.concatenate([strands, _knot(style, rng, n // 6, steps)])
        lock = np.concatenate([lock, rng.integers(0, lock.max() + 1, n // 6)])
    return dict(
        points=(strands + CENTRE).astype(np.float32),
        colour=_colours(identity, len(strands), lock, rng),
        width=np.full(len(strands), 0.016 if identity["style"] == "locs" else 0.0115, np.float32),
        alpha=np.full(len(strands), 0.35 if identity["style"] == "buzz" else 0.62, np.float32),
    )
