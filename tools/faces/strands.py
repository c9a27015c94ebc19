"""Hair as single strands: how they grow over a head, catch light and are drawn with soft edges (numba).

A bundle of strands is an N×K×3 array of points (dm). Drawing goes from front to back: every strand lets
some of what lies behind it through, which keeps the edge of the hair soft.
"""

import numba
import numpy as np


@numba.njit(cache=True)
def cell(rows, columns, polar_step, x, y, z):
    """Place of the direction (x, y, z) in a (polar, azimuth) grid: row, columns, fractions; its length."""
    length = np.sqrt(x * x + y * y + z * z) + 1e-9
    row = min(np.arccos(min(max(y / length, -1.0), 1.0)) / polar_step, rows - 1.001)
    column = (np.arctan2(x, z) / (2 * np.pi) + 0.5) * columns
    r, c = int(row), int(column) % columns
    return r, c, (c + 1) % columns, row - r, column - np.floor(column), length


@numba.njit(cache=True)
def between(grid, r, c, d, fr, fc):
    """Bilinear value of a grid in a cell."""
    top = grid[r, c] * (1 - fc) + grid[r, d] * fc
    return top * (1 - fr) + (grid[r + 1, c] * (1 - fc) + grid[r + 1, d] * fc) * fr


@numba.njit(cache=True)
def grow(roots, heading, length, gravity, lay, clearance, guard, stop, grid, polar_step, steps):
    """Let strands grow from `roots` (relative to the grid's centre) along `heading`, drawn down by `gravity`.

    `lay` says how fast they lie down on the head; they slide over it at their own `clearance`. In front of
    the face they keep out of azimuths below `guard`. They end at the height `stop`. Returns N×steps×3.
    """
    count, (rows, columns) = len(roots), grid.shape
    out = np.zeros((count, steps, 3), np.float32)
    for i in range(count):
        x, y, z = roots[i, 0], roots[i, 1], roots[i, 2]
        dx, dy, dz = heading[i, 0], heading[i, 1], heading[i, 2]
        ds, grown = max(length[i], 1e-3) / (steps - 1), 0.0
        out[i, 0] = roots[i]
        for k in range(1, steps):
            if y > stop[i]:
                out_y = y if y > 0 else 0.0
                far = np.sqrt(x * x + out_y * out_y + z * z) + 1e-9
                pull = lay * ds / far * (1.0 if y > 0 else 0.15)
                dx, dy, dz = dx - pull * x, dy - pull * out_y - gravity[i] * ds, dz - pull * z
                norm = np.sqrt(dx * dx + dy * dy + dz * dz) + 1e-9
                dx, dy, dz = dx / norm, dy / norm, dz / norm
                nx, ny, nz = x + dx * ds, y + dy * ds, z + dz * ds
                grown += ds
                if guard[i] > 0 and ny < 0.55:
                    turn, flat = np.arctan2(nx, nz), np.sqrt(nx * nx + nz * nz)
                    if abs(turn) < guard[i]:
                        aim = guard[i] if turn > 0 else -guard[i]
                        turn += (aim - turn) * min(0.5, 0.8 * (0.55 - ny))
                        nx, nz = flat * np.sin(turn), flat * np.cos(turn)
                r, c, d, fr, fc, far = cell(rows, columns, polar_step, nx, ny, nz)
                least = between(grid, r, c, d, fr, fc) + clearance[i] * min(1.0, grown / 0.12)
                if far < least:
                    nx, ny, nz = nx * least / far, ny * least / far, nz * least / far
                dx, dy, dz = (nx - x) / ds, (ny - y) / ds, (nz - z) / ds
                x, y, z = nx, ny, nz
            out[i, k, 0], out[i, k, 1], out[i, k, 2] = x, y, z
    return out


@numba.njit(cache=True)
def carry(points, shift, polar_step, centre):
    """Add to points (M×3) the displacement that a (polar, azimuth) grid holds for their direction."""
    out = np.empty_like(points)
    for i in range(len(points)):
        x, y, z = points[i, 0] - centre[0], points[i, 1] - centre[1], points[i, 2] - centre[2]
        r, c, d, fr, fc, _ = cell(shift.shape[1], shift.shape[2], polar_step, x, y, z)
        for k in range(3):
            out[i, k] = points[i, k] + between(shift[k], r, c, d, fr, fc)
    return out


@numba.njit(cache=True)
def splat(u, v, depth, picture):
    """Write the nearest depth of polylines (N×K pixel positions) into a depth map, in place."""
    size = picture.shape[0]
    for i in range(u.shape[0]):
        for k in range(u.shape[1] - 1):
            du, dv = u[i, k + 1] - u[i, k], v[i, k + 1] - v[i, k]
            taps = int(max(abs(du), abs(dv))) + 1
            for s in range(taps):
                f = s / taps
                col, row = int(u[i, k] + f * du), int(v[i, k] + f * dv)
                if 0 <= row < size and 0 <= col < size:
                    d = depth[i, k] + f * (depth[i, k + 1] - depth[i, k])
                    picture[row, col] = max(picture[row, col], d)


@numba.njit(cache=True)
def in_sight(x, y, depth, surface, slack):
    """Which strands (N×K pixel positions and depths) have a point that `surface` (depth) doesn't hide."""
    high, wide = surface.shape
    out = np.zeros(len(x), np.bool_)
    for i in range(len(x)):
        for k in range(x.shape[1]):
            row, col = int(y[i, k]), int(x[i, k])
            if 0 <= row < high and 0 <= col < wide and depth[i, k] > surface[row, col] - slack:
                out[i] = True
                break
    return out


@numba.njit(cache=True)
def light_strands(points, colour, key, view, lit, sky, core, power, fill, sheen, centre):
    """Outgoing light of strand points: Kajiya-Kay with two highlights, the second in the hair's own colour.

    points N×K×3, colour N×3, lit and sky N×K (shares of key light and sky). core (0-1): how far the hair as
    a whole reflects like a surface. Returns N×K×3 in linear light.
    """
    count, steps = points.shape[:2]
    out = np.empty((count, steps, 3), np.float32)
    half = key + view
    half = half / np.sqrt((half * half).sum())
    for i in range(count):
        top = max(colour[i, 0], colour[i, 1], colour[i, 2]) + 1e-6
        for k in range(steps):
            a, b = points[i, max(k - 1, 0)], points[i, min(k + 1, steps - 1)]
            tx, ty, tz = b[0] - a[0], b[1] - a[1], b[2] - a[2]
            norm = np.sqrt(tx * tx + ty * ty + tz * tz) + 1e-9
            ox = points[i, k, 0] - centre[0]
            oy = points[i, k, 1] - centre[1]
            oz = points[i, k, 2] - centre[2]
            away = np.sqrt(ox * ox + oy * oy + oz * oz) + 1e-9
            facing = (ox * key[0] + oy * key[1] + oz * key[2]) / away
            along = (tx * key[0] + ty * key[1] + tz * key[2]) / norm
            across = (tx * half[0] + ty * half[1] + tz * half[2]) / norm
            soft = core * max(0.0, (facing + 0.4) / 1.4) + (1 - core) * np.sqrt(max(0.0, 1 - along * along))
            open_sky = fill * sky[i, k] * (0.72 + 0.28 * oy / away)
            first = sheen * np.sqrt(max(0.0, 1 - (across - 0.05) ** 2)) ** 90
            second = 1.6 * sheen * np.sqrt(max(0.0, 1 - (across + 0.10) ** 2)) ** 24
            gleam = power * lit[i, k] * max(0.0, facing + 0.35)
            for c in range(3):
                out[i, k, c] = colour[i, c] * (power * lit[i, k] * soft + open_sky) * 0.62
                out[i, k, c] += gleam * (first + second * colour[i, c] / top)
    return out


@numba.njit(cache=True)
def nearest_first(depth, buckets=2048):
    """Order of segments from the nearest (largest depth) to the farthest: a counting sort."""
    low, high = depth.min(), depth.max() + 1e-6
    key = ((high - depth) / (high - low) * (buckets - 1)).astype(np.int32)
    start = np.zeros(buckets + 1, np.int64)
    for value in key:
        start[value + 1] += 1
    start = start.cumsum()
    order = np.empty(len(key), np.int64)
    for i, value in enumerate(key):
        order[start[value]] = i
        start[value] += 1
    return order


@numba.njit(cache=True)
def draw(a, b, colour_a, colour_b, width, alpha, order, surface, layer):
    """Blend segments a→b (S×3: pixels and depth) in the given order into `layer` (H×W×4), in place.

    The layer holds premultiplied colour and, last, the light that still passes. Hidden by `surface` (depth).
    """
    high, wide = surface.shape
    for i in order:
        reach = max(width[i], 1.0) / 2
        strength = alpha[i] * min(width[i], 1.0)
        dx, dy = b[i, 0] - a[i, 0], b[i, 1] - a[i, 1]
        steep = abs(dy) > abs(dx)
        main = 1 if steep else 0
        start, end = a[i, main], b[i, main]
        if abs(end - start) < 1e-6:
            continue
        slope = (dx / dy) if steep else (dy / dx)
        side = reach * np.sqrt(1 + slope * slope)
        first, last = min(start, end), max(start, end)
        for line in range(max(int(np.floor(first)), 0), min(int(np.ceil(last)), high if steep else wide)):
            share = min(line + 1.0, last) - max(line + 0.0, first)
            if share <= 0:
                continue
            f = min(max((line + 0.5 - start) / (end - start), 0.0), 1.0)
            middle = a[i, 1 - main] + (min(max(line + 0.5, first), last) - start) * slope
            depth = a[i, 2] + f * (b[i, 2] - a[i, 2])
            for other in range(int(np.floor(middle - side)), int(np.floor(middle + side)) + 1):
                if other < 0 or other >= (wide if steep else high):
                    continue
                row, col = (line, other) if steep else (other, line)
                cover = min(other + 1.0, middle + side) - max(other + 0.0, middle - side)
                left = layer[row, col, 3]
                if cover <= 0 or left < 0.01 or depth < surface[row, col]:
                    continue
                blend = left * min(strength * share * cover, 1.0)
                for c in range(3):
                    layer[row, col, c] += blend * (colour_a[i, c] + f * (colour_b[i, c] - colour_a[i, c]))
                layer[row, col, 3] = left - blend
