"""Hair, glasses and beard: what the MakeHuman head doesn't carry, grown on it procedurally.

Hair is one closed surface of columns that leave the crown, follow the scalp to the hairline and, in long
styles, hang from there. It tapers to the skin at the hairline, so that no gap shows.
"""

from functools import lru_cache

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from tools.faces.raster import cast

CENTRE = np.array([0.0, 7.45, 0.42])
COLUMNS, ROWS = 168, 46
LINE_AZIMUTH = np.radians([0, 22, 38, 50, 60, 68, 76, 84, 100, 112, 125, 145, 180])
LINE_HEIGHT = np.array([7.98, 7.95, 7.86, 7.70, 7.5, 7.28, 7.3, 7.56, 7.58, 7.2, 6.95, 6.7, 6.62])
"""Where hair begins on the base head: height (dm) against the azimuth around the head, 0 in front."""
HANGING = dict(bob=6.45, long=5.0, wavy=5.2, curly=6.35)


def azimuth(points: np.ndarray) -> np.ndarray:
    """Angle around the vertical axis of the head, 0 in front, ±π behind."""
    return np.arctan2(points[..., 0], points[..., 2] - CENTRE[2])


def line_height(angle: np.ndarray, identity: dict) -> np.ndarray:
    """Height of a person's hairline at an azimuth (dm on the base head)."""
    height = np.interp(np.abs(angle), LINE_AZIMUTH, LINE_HEIGHT)
    front = np.exp(-((np.abs(angle) / 0.75) ** 4))
    temples = np.exp(-(((np.abs(angle) - 0.62) / 0.22) ** 2))
    height = height + front * identity["hairline"] + temples * 0.06 * identity["male"]
    if identity["style"] == "receding":
        height = height + front * 0.22 + temples * 0.16
    return height


class Scalp:
    """The base head as seen from its centre: a radius for every direction, ears left out."""

    def __init__(self, vertices: np.ndarray, triangles: np.ndarray):
        ear = (
            (np.abs(vertices[:, 0]) > 0.7)
            & (np.abs(vertices[:, 1] - 7.2) < 0.45)
            & (np.abs(vertices[:, 2] - 0.4) < 0.45)
        )
        solid = triangles[~ear[triangles].any(1)]
        self.polar = np.linspace(0, np.radians(150), 76)
        self.angle = np.linspace(-np.pi, np.pi, COLUMNS, endpoint=False)
        p, a = np.meshgrid(self.polar, self.angle, indexing="ij")
        self.directions = np.stack([np.sin(p) * np.sin(a), np.cos(p), np.sin(p) * np.cos(a)], -1)
        corners = vertices[solid[:, 0]].astype(float)
        edge1, edge2 = vertices[solid[:, 1]] - corners, vertices[solid[:, 2]] - corners
        radius = cast(CENTRE, self.directions.reshape(-1, 3), corners, edge1, edge2, 9.0).reshape(p.shape)
        missed = radius > 2
        radius[missed] = np.nan
        filled = radius.copy()
        for row in filled:
            good = ~np.isnan(row)
            row[~good] = np.interp(np.flatnonzero(~good), np.flatnonzero(good), row[good], period=COLUMNS)
        self.radius = gaussian_filter(filled, (1.2, 1.5), mode=("nearest", "wrap"))
        skin = np.unique(solid)
        self.tree = cKDTree(vertices[skin])
        self.skin = skin

    def carry(self, points: np.ndarray, moved: np.ndarray) -> np.ndarray:
        """Move points near the base head along with a person's head (`moved` = vertex displacements)."""
        distance, index = self.tree.query(points, k=10)
        weights = 1 / (distance + 0.06)
        weights /= weights.sum(1, keepdims=True)
        return points + (moved[self.skin][index] * weights[..., None]).sum(1)


def _wave(rng, columns: int, frequency: int) -> np.ndarray:
    """Smooth random numbers around a circle, about unit size."""
    knots = rng.normal(0, 1, frequency)
    where = np.arange(columns) * frequency / columns
    low = where.astype(int)
    fade = where - low
    fade = fade * fade * (3 - 2 * fade)
    return knots[low % frequency] * (1 - fade) + knots[(low + 1) % frequency] * fade


def hair(identity: dict, scalp: Scalp) -> dict | None:
    """Vertices on the base head, triangles and strand coordinates of a hairstyle; None for a shaved head."""
    style, rng = identity["style"], np.random.default_rng([13, identity["seed"]])
    if style == "shaved":
        return None
    angle, polar = scalp.angle, scalp.polar
    side = np.abs(angle)
    volume = identity["volume"]
    front_line = line_height(angle, identity)
    heights = CENTRE[1] + scalp.radius * np.cos(polar)[:, None]
    if style == "swept" or style == "bun":
        front_line = front_line + 0.01
    bangs = identity["bangs"] and style in ("bob", "long", "wavy")
    if bangs:
        fringe = np.exp(-((side / 0.72) ** 6))
        front_line = front_line - fringe * (0.33 + 0.03 * _wave(rng, COLUMNS, 40))
    front_line = front_line + 0.012 * _wave(rng, COLUMNS, 60)
    end = np.array([polar[np.argmax(heights[:, k] < front_line[k])] for k in range(COLUMNS)])
    hanging = HANGING.get(style)
    open_face = np.radians(44 if style in ("long", "wavy") else 50)
    loose = 1 / (1 + np.exp(-(side - open_face) / np.radians(3.0))) if hanging else np.zeros(COLUMNS)
    equator = np.radians(96)
    hold = np.where(loose > 0.02, np.maximum(np.minimum(end, equator), np.minimum(equator, end + loose)), end)

    v = np.linspace(0, 1, ROWS)[:, None]
    attached = 0.55 if hanging else 1.0
    along = np.minimum(v / attached, 1.0)
    phi = hold[None] * along
    column = np.arange(COLUMNS)[None].repeat(ROWS, 0)
    row = np.clip(phi / (polar[1] - polar[0]), 0, len(polar) - 1.001)
    low = row.astype(int)
    radius = scalp.radius[low, column] * (1 - row % 1) + scalp.radius[
        np.minimum(low + 1, len(polar) - 1), column
    ] * (row % 1)

    top = np.cos(np.minimum(phi, np.pi / 2)) ** 0.7
    thick = {
        "crop": 0.055 + 0.11 * top,
        "parted": 0.06 + 0.15 * top,
        "swept": 0.05 + 0.19 * top,
        "receding": 0.05 + 0.03 * top,
        "bob": 0.13 + 0.06 * top,
        "long": 0.10 + 0.06 * top,
        "wavy": 0.14 + 0.07 * top,
        "curly": 0.22 + 0.1 * top,
        "afro": 0.42 + 0.12 * top,
        "bun": 0.05 + 0.02 * top,
    }[style] * volume
    to_line = (end[None] - phi) / np.radians(16 if style != "afro" else 26)
    taper = (
        np.clip(to_line, 0, 1) ** 0.5
        if not hanging
        else np.clip(np.maximum(to_line, loose[None] * 1.0), 0, 1) ** 0.5
    )
    if bangs:
        taper = np.maximum(taper, 0.7 * np.exp(-((side[None] / 0.72) ** 6)))
    thick = thick * (0.04 + 0.96 * taper)
    if style in ("parted", "bob", "long", "wavy"):
        off = 0.0 if style in ("long", "bob") and not identity["bangs"] else identity["part"]
        on_top = radius * np.sin(phi) * np.sin(angle)[None]
        groove = (
            np.exp(-(((on_top - off) / 0.035) ** 2)) * (np.cos(angle)[None] > -0.3) * (phi < np.radians(75))
        )
        thick = thick * (1 - 0.75 * groove)
    if style == "parted":
        lean = np.tanh(
            (radius * np.sin(phi) * np.sin(angle)[None] - identity["part"]) * 3 * -np.sign(identity["part"])
        )
        thick = thick * (1 + 0.35 * lean * top)
    if style == "swept":
        thick = thick * (
            1 + 0.7 * np.exp(-((side[None] / 0.6) ** 2)) * np.exp(-(((phi - end[None] + 0.35) / 0.25) ** 2))
        )
    clump = 0.6 * _wave(rng, COLUMNS, 34) + 0.4 * _wave(rng, COLUMNS, 75)
    if style in ("curly", "afro"):
        bumps = gaussian_filter(rng.normal(0, 1, (ROWS, COLUMNS)), (0.8, 1.2), mode=("nearest", "wrap"))
        thick = thick * (
            1 + 0.4 * np.clip(bumps / bumps.std() * 0.35, -0.6, 0.6) * np.minimum(taper + 0.2, 1)
        )
    else:
        thick = thick * (1 + 0.14 * clump[None] * along)
    outer = radius + thick

    points = CENTRE + outer[..., None] * np.stack(
        [np.sin(phi) * np.sin(angle)[None], np.cos(phi), np.sin(phi) * np.cos(angle)[None]], -1
    )
    if hanging:
        fall = np.clip((v - attached) / (1 - attached), 0, 1)
        start = points[int(np.ceil(attached * (ROWS - 1)))].copy()
        tip = hanging + 0.18 * (volume - 1) + 0.07 * clump + 0.06 * _wave(rng, COLUMNS, 90)
        tip = np.where(loose > 0.5, tip, start[:, 1])
        drop = np.maximum(start[:, 1] - tip, 0) * loose
        flare = {"bob": 0.10, "long": 0.06, "wavy": 0.16, "curly": 0.12}[style]
        curl = {"bob": -0.22, "long": -0.06, "wavy": -0.05, "curly": -0.2}[style]
        out = flare * np.sin(np.pi * np.minimum(fall * 0.8, 1)) + curl * fall**3
        wave = 0
        if style == "wavy":
            wave = 0.05 * np.sin(fall * 15 + 1.5 * _wave(rng, COLUMNS, 14)[None]) * np.minimum(fall * 3, 1)
        if style == "curly":
            wave = 0.10 * bumps * np.minimum(fall * 3 + 0.3, 1)
        spread = 1 + (out + wave + 0.03 * clump[None] * fall) * loose[None]
        hangs = (fall > 0) & (loose[None] > 0.02)
        flat = start[None, :, [0, 2]] - CENTRE[[0, 2]]
        down = np.stack(
            [
                CENTRE[0] + flat[..., 0] * spread,
                start[None, :, 1] - drop[None] * fall,
                CENTRE[2] + flat[..., 1] * spread,
            ],
            -1,
        )
        points = np.where(hangs[..., None], down, points)
    grid = np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS)
    right = np.roll(grid, -1, 1)
    quads = np.stack([grid[:-1], grid[1:], right[1:], right[:-1]], -1).reshape(-1, 4)
    triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    strand = np.stack(
        [np.broadcast_to(np.arange(COLUMNS) / COLUMNS, (ROWS, COLUMNS)), np.broadcast_to(v, (ROWS, COLUMNS))],
        -1,
    )
    points, strand = points.reshape(-1, 3), strand.reshape(-1, 2)
    if style == "bun":
        ball, faces, where = _ball(CENTRE + np.array([0, 0.98, -0.72]), 0.34 * volume)
        triangles = np.concatenate([triangles, faces + len(points)])
        points, strand = np.concatenate([points, ball]), np.concatenate([strand, where])
    return dict(points=points, triangles=triangles, strand=strand)


def _ball(centre: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    p, a = np.meshgrid(
        np.linspace(0, np.pi, 14), np.linspace(0, 2 * np.pi, 24, endpoint=False), indexing="ij"
    )
    points = centre + radius * np.stack([np.sin(p) * np.sin(a), np.cos(p), np.sin(p) * np.cos(a)], -1)
    grid = np.arange(14 * 24).reshape(14, 24)
    right = np.roll(grid, -1, 1)
    quads = np.stack([grid[:-1], grid[1:], right[1:], right[:-1]], -1).reshape(-1, 4)
    faces = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    return points.reshape(-1, 3), faces, np.stack([a / 6.28, p / 3.14], -1).reshape(-1, 2)


def _tube(path: np.ndarray, thick: float, closed: bool) -> tuple[np.ndarray, np.ndarray]:
    """A thin tube with a square cross-section along a polyline."""
    ahead = np.roll(path, -1, 0) - np.roll(path, 1, 0) if closed else np.gradient(path, axis=0)
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
    across = np.cross(ahead, [0, 0.05, 1.0])
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    upward = np.cross(across, ahead)
    turn = np.radians([45, 135, 225, 315])
    ring = path[:, None] + thick * (
        np.cos(turn)[None, :, None] * across[:, None] + np.sin(turn)[None, :, None] * upward[:, None]
    )
    count = len(path)
    grid = np.arange(count * 4).reshape(count, 4)
    ahead_grid = np.roll(grid, -1, 0) if closed else grid[1:]
    here = grid if closed else grid[:-1]
    quads = np.stack([here, ahead_grid, np.roll(ahead_grid, -1, 1), np.roll(here, -1, 1)], -1).reshape(-1, 4)
    return ring.reshape(-1, 3), np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])


def glasses(settings: dict, eye_left: np.ndarray, eye_right: np.ndarray, front: float) -> dict:
    """Frames before a person's own eyes; `front`: how far the nose bridge and lids reach (z, dm)."""
    turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    power = 2 / settings["round"]
    pieces, offset = [], 0
    z = front + 0.13
    rims = []
    for eye, sign in ((eye_left, 1), (eye_right, -1)):
        c, s = np.cos(turn), np.sin(turn)
        x = eye[0] + sign * 0.025 + settings["width"] * np.sign(c) * np.abs(c) ** power
        y = eye[1] - 0.03 + settings["height"] * np.sign(s) * np.abs(s) ** power
        rim = np.stack([x, y, z - 0.25 * np.maximum(np.abs(x) - 0.25, 0) ** 1.5], -1)
        rims.append(rim)
        pieces.append(_tube(rim, settings["thick"], True))
        hinge = rim[np.argmax(sign * rim[:, 0])] + np.array([0, 0.05, 0])
        ear = np.array([sign * 0.84, eye[1] - 0.02, 0.5])
        pieces.append(_tube(np.linspace(hinge, ear, 6), settings["thick"], False))
    inner = [rims[0][np.argmin(rims[0][:, 0])], rims[1][np.argmax(rims[1][:, 0])]]
    lift = np.array([[0, 0.05, 0.0], [0, 0.075, 0.02], [0, 0.05, 0.0]])
    bridge = np.stack([inner[0], (inner[0] + inner[1]) / 2, inner[1]]) + lift
    pieces.append(_tube(bridge, settings["thick"], False))
    points, triangles = [], []
    for ring, faces in pieces:
        points.append(ring)
        triangles.append(faces + offset)
        offset += len(ring)
    return dict(points=np.concatenate(points), triangles=np.concatenate(triangles))


def beard_mask(points: np.ndarray, kind: str | None) -> np.ndarray:
    """How much beard grows at points of the base head, 0-1: jaw, chin and upper lip, not the lips."""
    x, y, z = np.abs(points[:, 0]), points[:, 1], points[:, 2]
    upper = np.interp(x, [0, 0.16, 0.26, 0.4, 0.55, 0.7, 0.8], [6.86, 6.84, 6.72, 6.62, 6.72, 6.95, 7.15])
    jaw = 1 / (1 + np.exp(-(upper - y) / 0.022))
    throat = 1 / (1 + np.exp(-(y - np.interp(z, [0.2, 0.8, 1.3], [6.4, 6.2, 6.12])) / 0.03))
    moustache = np.exp(-(((y - (6.865 - 0.25 * x**2)) / 0.035) ** 2)) * (x < 0.3)
    front = 1 / (1 + np.exp(-(z - 0.42) / 0.04))
    mask = np.maximum(jaw * throat, moustache) * front
    if kind == "goatee":
        mask = mask * np.exp(-((x / 0.27) ** 6))
    return mask if kind else np.zeros(len(points))


@lru_cache(maxsize=1)
def noise_textures() -> tuple[np.ndarray, np.ndarray]:
    """A blotchy skin texture and a strand texture (both 512², about unit size), the same for everybody."""
    rng = np.random.default_rng(7)
    blotch = sum(
        gaussian_filter(rng.normal(0, 1, (512, 512)), s, mode="wrap") * s * w
        for s, w in ((1, 0.5), (3, 0.6), (9, 0.8), (30, 0.8))
    )
    strand = sum(
        gaussian_filter(rng.normal(0, 1, (512, 512)), (24, s), mode="wrap") * np.sqrt(24 * s) * w
        for s, w in ((0.7, 0.9), (1.8, 0.9), (5, 0.8))
    )
    return (blotch / blotch.std()).astype(np.float32), (strand / strand.std()).astype(np.float32)
