"""A z-buffer and a ray tracer, compiled by numba: all the geometry that the face renderer needs."""

import numba
import numpy as np

# Its OpenMP layer would set torch's number of threads too, and with it the last bits of what torch computes
# afterwards in the same process (numba issue 9387).
numba.config.THREADING_LAYER = "workqueue"


@numba.njit(cache=True)
def rasterise(x, y, z, triangles, width, height):
    """Visible triangle (−1: none), its barycentric weights and depth at every pixel; larger `z` is nearer."""
    depth = np.full((height, width), -1e9, np.float32)
    face = np.full((height, width), -1, np.int32)
    weights = np.zeros((height, width, 3), np.float32)
    for t in range(triangles.shape[0]):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        area = (x[b] - x[a]) * (y[c] - y[a]) - (x[c] - x[a]) * (y[b] - y[a])
        if abs(area) < 1e-9:
            continue
        inverse = 1 / area
        left, right = min(x[a], x[b], x[c]), max(x[a], x[b], x[c])
        top, bottom = min(y[a], y[b], y[c]), max(y[a], y[b], y[c])
        for row in range(max(int(np.floor(top - 0.5)), 0), min(int(np.ceil(bottom + 0.5)), height)):
            for col in range(max(int(np.floor(left - 0.5)), 0), min(int(np.ceil(right + 0.5)), width)):
                px, py = col + 0.5, row + 0.5
                wb = ((px - x[a]) * (y[c] - y[a]) - (x[c] - x[a]) * (py - y[a])) * inverse
                wc = ((x[b] - x[a]) * (py - y[a]) - (px - x[a]) * (y[b] - y[a])) * inverse
                wa = 1 - wb - wc
                if wa < 0 or wb < 0 or wc < 0:
                    continue
                d = wa * z[a] + wb * z[b] + wc * z[c]
                if d > depth[row, col]:
                    depth[row, col] = d
                    face[row, col] = t
                    weights[row, col, 0], weights[row, col, 1], weights[row, col, 2] = wa, wb, wc
    return face, weights, depth


@numba.njit(cache=True)
def ray_hit(origin, direction, corners, edge1, edge2, farthest):
    """Distance to the nearest triangle along a ray (Möller-Trumbore), or `farthest`."""
    best = farthest
    for t in range(corners.shape[0]):
        px = direction[1] * edge2[t, 2] - direction[2] * edge2[t, 1]
        py = direction[2] * edge2[t, 0] - direction[0] * edge2[t, 2]
        pz = direction[0] * edge2[t, 1] - direction[1] * edge2[t, 0]
        det = edge1[t, 0] * px + edge1[t, 1] * py + edge1[t, 2] * pz
        if abs(det) < 1e-12:
            continue
        sx, sy, sz = origin[0] - corners[t, 0], origin[1] - corners[t, 1], origin[2] - corners[t, 2]
        u = (sx * px + sy * py + sz * pz) / det
        if u < 0 or u > 1:
            continue
        qx = sy * edge1[t, 2] - sz * edge1[t, 1]
        qy = sz * edge1[t, 0] - sx * edge1[t, 2]
        qz = sx * edge1[t, 1] - sy * edge1[t, 0]
        v = (direction[0] * qx + direction[1] * qy + direction[2] * qz) / det
        if v < 0 or u + v > 1:
            continue
        distance = (edge2[t, 0] * qx + edge2[t, 1] * qy + edge2[t, 2] * qz) / det
        if 1e-3 < distance < best:
            best = distance
    return best


@numba.njit(cache=True, parallel=True)
def _open_sky(points, normals, directions, corners, edge1, edge2, reach):
    result = np.zeros(points.shape[0], np.float32)
    for i in numba.prange(points.shape[0]):
        total, seen = 0.0, 0.0
        for k in range(directions.shape[0]):
            cosine = (directions[k] * normals[i]).sum()
            if cosine > 0.05:
                total += cosine
                seen += (
                    cosine
                    * ray_hit(points[i] + 4e-3 * normals[i], directions[k], corners, edge1, edge2, reach)
                    / reach
                )
        result[i] = seen / total
    return result


@numba.njit(cache=True, parallel=True)
def cast(origin, directions, corners, edge1, edge2, farthest):
    """Distances from one origin along many directions."""
    result = np.zeros(directions.shape[0], np.float32)
    for i in numba.prange(directions.shape[0]):
        result[i] = ray_hit(origin, directions[i], corners, edge1, edge2, farthest)
    return result


def vertex_normals(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Area-weighted unit normals (V×3)."""
    a, b, c = (points[triangles[:, k]] for k in range(3))
    face_normals = np.cross(b - a, c - a)
    normals = np.stack(
        [
            np.bincount(triangles.ravel(), np.repeat(face_normals[:, k], 3), minlength=len(points))
            for k in range(3)
        ],
        1,
    )
    return normals / (np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12)


def trace_occlusion(points, triangles, solid, rays: int, reach: float) -> np.ndarray:
    """Share of the sky that each vertex sees within `reach`: 1 in the open, towards 0 in a fold."""
    k = np.arange(rays) + 0.5
    polar, turn = np.arccos(1 - 2 * k / rays), np.pi * (1 + 5**0.5) * k
    directions = np.stack([np.cos(turn) * np.sin(polar), np.sin(turn) * np.sin(polar), np.cos(polar)], 1)
    corners = points[solid[:, 0]]
    edge1, edge2 = points[solid[:, 1]] - corners, points[solid[:, 2]] - corners
    return _open_sky(points, vertex_normals(points, triangles), directions, corners, edge1, edge2, reach)


@numba.njit(cache=True)
def gather(values, corners, weights):
    """Values of vertices (V×C) interpolated at places given by corner vertices (n×3) and weights (n×3)."""
    out = np.empty((len(corners), values.shape[1]), np.float32)
    for i in range(len(corners)):
        a, b, c = corners[i, 0], corners[i, 1], corners[i, 2]
        for k in range(values.shape[1]):
            out[i, k] = (
                weights[i, 0] * values[a, k] + weights[i, 1] * values[b, k] + weights[i, 2] * values[c, k]
            )
    return out


@numba.njit(cache=True)
def texture(picture, u, v):
    """Bilinear values of a periodic square texture; coordinates in periods."""
    size = picture.shape[0]
    out = np.empty(len(u), np.float32)
    for i in range(len(u)):
        col, row = u[i] * size, v[i] * size
        c, r = np.floor(col), np.floor(row)
        fc, fr = col - c, row - r
        c0, r0 = int(c) % size, int(r) % size
        c1, r1 = (c0 + 1) % size, (r0 + 1) % size
        top = picture[r0, c0] * (1 - fc) + picture[r0, c1] * fc
        out[i] = top * (1 - fr) + (picture[r1, c0] * (1 - fc) + picture[r1, c1] * fc) * fr
    return out


@numba.njit(cache=True)
def turn_head(points, angles, pivot, low, high):
    """Points (M×3) turned by (yaw, pitch, roll) radians about `pivot`: a third of it below `low`."""
    out = np.empty_like(points)
    for i in range(len(points)):
        follow = 0.35 + 0.65 * min(max((points[i, 1] - low) / (high - low), 0.0), 1.0)
        yaw, pitch, roll = angles[0] * follow, angles[1] * follow, angles[2] * follow
        x, y, z = points[i, 0] - pivot[0], points[i, 1] - pivot[1], points[i, 2] - pivot[2]
        x, y = np.cos(roll) * x - np.sin(roll) * y, np.sin(roll) * x + np.cos(roll) * y
        y, z = np.cos(pitch) * y - np.sin(pitch) * z, np.sin(pitch) * y + np.cos(pitch) * z
        x, z = np.cos(yaw) * x + np.sin(yaw) * z, -np.sin(yaw) * x + np.cos(yaw) * z
        out[i, 0], out[i, 1], out[i, 2] = x + pivot[0], y + pivot[1], z + pivot[2]
    return out


@numba.njit(cache=True)
def place(points, basis, middle, scale, size):
    """Columns, rows and depths (3×M) of points (M×3) in a depth map of a distant light."""
    out = np.empty((3, len(points)), np.float32)
    for i in range(len(points)):
        x, y, z = points[i, 0] - middle[0], points[i, 1] - middle[1], points[i, 2] - middle[2]
        out[0, i] = size / 2 + scale * (x * basis[0, 0] + y * basis[1, 0] + z * basis[2, 0])
        out[1, i] = size / 2 - scale * (x * basis[0, 1] + y * basis[1, 1] + z * basis[2, 1])
        out[2, i] = x * basis[0, 2] + y * basis[1, 2] + z * basis[2, 2]
    return out


@numba.njit(cache=True, fastmath=True)
def shadow(u, v, depth, solid, hair, taps, radius, bias, density):
    """Share of a light that reaches points at (u, v, depth) of its depth maps, averaged over a disc of taps.

    The head (`solid`) blocks light, `hair` lets exp(−density·way) through. Depth grows towards the light.
    """
    size = solid.shape[0]
    out = np.empty(len(u), np.float32)
    for i in range(len(u)):
        total = 0.0
        for k in range(len(taps)):
            col = min(max(int(u[i] + radius * taps[k, 0]), 0), size - 1)
            row = min(max(int(v[i] + radius * taps[k, 1]), 0), size - 1)
            open_share = min(max(1 - (solid[row, col] - depth[i] - bias) / 0.05, 0.0), 1.0)
            way = hair[row, col] - depth[i] - 0.02
            if way > 0:
                open_share *= max(np.exp(-density * way), 0.15)
            total += open_share
        out[i] = total / len(taps)
    return out
