"""What a person wears: cloth painted on the body below a neckline, a collar that stands off it, glasses."""

import numpy as np
from scipy.spatial import cKDTree

from tools.faces.raster import cast

AXIS_Z = 0.12
TURNS, HEIGHTS = 72, np.linspace(5.2, 6.6, 29)
NECKLINES = dict(
    crew=(5.80, 6.0, 6.15),
    vneck=(5.72, 5.99, 6.13),
    scoop=(5.45, 5.88, 6.0),
    shirt=(5.86, 6.02, 6.2),
    jacket=(5.86, 6.02, 6.2),
    hoodie=(5.84, 6.02, 6.15),
    roll=(5.95, 6.08, 6.2),
)
"""Height of the neckline (dm on the base head) in front, at the side of the neck and behind it."""
COLLARS = dict(
    crew=[(0.0, -0.05), (0.035, -0.03), (0.05, 0.01), (0.03, 0.04), (0.0, 0.045)],
    vneck=[(0.0, -0.04), (0.03, -0.02), (0.035, 0.01), (0.0, 0.03)],
    scoop=[(0.0, -0.03), (0.022, -0.01), (0.02, 0.01), (0.0, 0.02)],
    shirt=[
        (0.02, -0.05),
        (0.025, 0.05),
        (0.035, 0.1),
        (0.06, 0.12),
        (0.085, 0.07),
        (0.1, -0.05),
        (0.13, -0.2),
    ],
    roll=[(0.02, -0.15), (0.03, 0.1), (0.04, 0.22), (0.07, 0.26), (0.10, 0.22), (0.115, 0.08), (0.1, -0.1)],
    hoodie=[(0.0, -0.1), (0.12, -0.12), (0.22, -0.05), (0.24, 0.06), (0.17, 0.15), (0.08, 0.16), (0.02, 0.1)],
)
COLLARS["jacket"] = COLLARS["shirt"]
"""Cross-sections of collars: distance from the body and height above the neckline (dm)."""


def neckline(points: np.ndarray, garment: dict) -> np.ndarray:
    """How far points of the base body lie below a garment's neckline (dm; negative: bare skin)."""
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    turn = np.abs(np.arctan2(x, z - AXIS_Z))
    height = np.interp(turn, [0.15, 1.3, 1.9, np.pi], [*np.array(NECKLINES[garment["kind"]])[[0, 1, 1, 2]]])
    height = height + garment["height"]
    if garment["kind"] in ("vneck", "shirt", "jacket"):
        deep, half = (0.42, 0.5) if garment["kind"] == "vneck" else (0.4, 0.22)
        height = height - deep * np.clip(1 - np.abs(x) / half, 0, 1) * (z > AXIS_Z)
    return height - y


def neck_radius(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Distance of the body from the neck's axis (heights × turns)."""
    corners = vertices[triangles[:, 0]]
    edge1, edge2 = vertices[triangles[:, 1]] - corners, vertices[triangles[:, 2]] - corners
    turn = 2 * np.pi * np.arange(TURNS) / TURNS
    rays = np.stack([np.sin(turn), np.zeros(TURNS), np.cos(turn)], 1)
    rows = [cast(np.array([0, y, AXIS_Z]), rays, corners, edge1, edge2, 1.5) for y in HEIGHTS]
    return np.array(rows)


def collar(garment: dict, radius: np.ndarray) -> dict:
    """A collar on the base body: points, triangles and where each point lies (turn, cross-section)."""
    kind = garment["kind"]
    section = np.array(COLLARS[kind])
    gap = {"shirt": 0.16, "jacket": 0.12, "hoodie": 0.75}.get(kind, 0.0)
    turn = np.linspace(gap, 2 * np.pi - gap, TURNS + 1)
    slant = 0.3 * (np.pi - turn) / np.pi
    front = np.minimum(turn, 2 * np.pi - turn)
    probe = 0.6 * np.stack([np.sin(turn), np.zeros(len(turn)), np.cos(turn)], 1)
    base = neckline(probe + [0, 0, AXIS_Z], garment | {"kind": "crew" if kind == "hoodie" else kind})
    if kind in ("shirt", "jacket"):
        base = neckline(probe + [0, 0, AXIS_Z], garment | {"kind": "crew"}) + 0.04
    grow = np.ones(len(turn))
    if kind == "hoodie":
        grow = np.sin(np.clip((front - gap) / (np.pi - gap), 0, 1) * np.pi / 2) ** 0.6
    points = []
    for out, up in section:
        tip = 1 + 0.9 * np.exp(-(((front - gap) / 0.25) ** 2)) * (up < 0) * (kind in ("shirt", "jacket"))
        y = base + up * grow * tip
        row = np.clip((y - HEIGHTS[0]) / (HEIGHTS[1] - HEIGHTS[0]), 0, len(HEIGHTS) - 1.001)
        angle = turn + slant * np.clip(0.1 - up, 0, 0.3) / 0.3 * (kind in ("shirt", "jacket"))
        column = angle / (2 * np.pi) * TURNS % TURNS
        r, c = row.astype(int), column.astype(int)
        fr, fc = row - r, column - c
        near = radius[r, c] * (1 - fc) + radius[r, (c + 1) % TURNS] * fc
        far = radius[r + 1, c] * (1 - fc) + radius[r + 1, (c + 1) % TURNS] * fc
        rho = np.minimum(near * (1 - fr) + far * fr, 0.95) + out * grow
        points.append(np.stack([rho * np.sin(angle), y, AXIS_Z + rho * np.cos(angle)], 1))
    points = np.array(points)
    where = np.stack(
        np.broadcast_arrays(turn[None] / (2 * np.pi), np.linspace(0, 1, len(section))[:, None]), -1
    )
    grid = np.arange(points.shape[0] * points.shape[1]).reshape(points.shape[:2])
    quads = np.stack([grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:], grid[:-1, 1:]], -1).reshape(-1, 4)
    triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    return dict(points=points.reshape(-1, 3), triangles=triangles, where=where.reshape(-1, 2))


def fit(points: np.ndarray, vertices: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """Points near the base body, moved along with a person's own body."""
    body = np.flatnonzero(vertices[:, 1] < 6.5)
    distance, near = cKDTree(vertices[body]).query(points, k=6)
    weights = 1 / (distance + 0.05)
    weights /= weights.sum(1, keepdims=True)
    return points + np.einsum("nk,nkc->nc", weights, moved[body[near]])


def cloth_colour(garment: dict, points: np.ndarray, noise: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Colour of cloth at points of the base body (N×3); `noise`: smooth noise, `below`: see neckline."""
    x, y = points[:, 0], points[:, 1]
    colour = garment["colour"] * (1 + 0.06 * noise[:, None])
    if garment["pattern"] == "stripes" and garment["kind"] in ("crew", "scoop", "vneck"):
        colour = np.where((y / 0.16 % 1 < 0.45)[:, None], garment["second"], colour)
    if garment["pattern"] == "checks" and garment["kind"] == "shirt":
        lines = (x / 0.18 % 1 < 0.25) * 0.5 + (y / 0.18 % 1 < 0.25) * 0.5
        colour = colour + (garment["second"] - colour) * 0.6 * lines[:, None]
    if garment["pattern"] == "knit":
        colour = (
            colour * (1 + 0.12 * np.sin(x * 150) * np.sin(y * 110 + 2 * np.abs((x * 24) % 1 - 0.5)))[:, None]
        )
    if garment["kind"] == "jacket":
        edge = np.abs(x) - np.interp(y, [5.0, 5.98, 6.2], [0.05, 0.47, 0.5])
        inner = garment["second"] * (1 + 0.03 * noise[:, None])
        colour = np.where((edge > 0)[:, None], colour, inner)
        lapel = edge - np.interp(y, [5.2, 5.7, 6.0], [0.12, 0.32, 0.18])
        crease = 0.55 * np.exp(-((edge / 0.025) ** 2)) + 0.4 * np.exp(-((lapel / 0.018) ** 2))
        colour = colour * (1 - crease)[:, None]
    if garment["kind"] == "shirt":
        placket = np.exp(-(((np.abs(x) - 0.09) / 0.01) ** 2)) * (points[:, 2] > 0.3)
        colour = colour * (1 - 0.3 * placket)[:, None]
    return colour * (1 - 0.35 * np.exp(-np.clip(below, 0, 9) / 0.03))[:, None]


def collar_colour(garment: dict, where: np.ndarray) -> np.ndarray:
    """Colour of a collar: ribbed on knitted clothes, the shirt's under a jacket."""
    colour = garment["second"] if garment["kind"] == "jacket" else garment["colour"]
    ribs = 0.0
    if garment["kind"] in ("crew", "roll"):
        ribs = 0.10 * np.sin(where[:, 0] * 2 * np.pi * 95)
    seam = 0.25 * np.exp(-(((where[:, 1] - 0.93) / 0.03) ** 2)) + 0.4 * (where[:, 1] > 0.985)
    return colour * (0.97 + ribs - seam)[:, None]


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
    grid = np.arange(len(path) * 4).reshape(len(path), 4)
    ahead_grid = np.roll(grid, -1, 0) if closed else grid[1:]
    here = grid if closed else grid[:-1]
    quads = np.stack([here, ahead_grid, np.roll(ahead_grid, -1, 1), np.roll(here, -1, 1)], -1).reshape(-1, 4)
    return ring.reshape(-1, 3), np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])


def glasses(settings: dict, eyes: list[np.ndarray], ears: list[np.ndarray], front: float) -> dict:
    """Frames before a person's own eyes; `front`: how far the nose bridge and lids reach (z, dm)."""
    turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    power = 2 / settings["round"]
    pieces, rims = [], []
    z = front + 0.12
    for eye, ear, sign in zip(eyes, ears, (1, -1), strict=True):
        c, s = np.cos(turn), np.sin(turn)
        x = eye[0] + sign * 0.02 + settings["width"] * np.sign(c) * np.abs(c) ** power
        y = eye[1] - 0.03 + settings["height"] * np.sign(s) * np.abs(s) ** power
        rim = np.stack([x, y, z - 0.3 * np.maximum(np.abs(x) - 0.25, 0) ** 1.5], -1)
        rims.append(rim)
        pieces.append(_tube(rim, settings["thick"], True))
        hinge = rim[np.argmax(sign * rim[:, 0])] + np.array([0, 0.05, 0])
        ear = np.array([ear[0], 0.5 * (ear[1] + eye[1]), ear[2]])
        pieces.append(_tube(np.linspace(hinge, ear, 6), settings["thick"], False))
    inner = [rims[0][np.argmin(rims[0][:, 0])], rims[1][np.argmax(rims[1][:, 0])]]
    lift = np.array([[0, 0.05, 0.0], [0, 0.075, 0.02], [0, 0.05, 0.0]])
    bridge = np.stack([inner[0], (inner[0] + inner[1]) / 2, inner[1]]) + lift
    pieces.append(_tube(bridge, settings["thick"], False))
    starts = np.cumsum([0] + [len(ring) for ring, _ in pieces[:-1]])
    triangles = np.concatenate([faces + start for (_, faces), start in zip(pieces, starts, strict=True)])
    return dict(points=np.concatenate([ring for ring, _ in pieces]), triangles=triangles)
