"""Render a person: pose the head, find what each pixel sees, shade it in linear light, draw the hair over it.

Diffuse light wraps around edges, red furthest, because under skin red light travels furthest. Depth maps of
the key light and of the sky cast shadows; ambient occlusion was traced once. Skin has two specular lobes.
Hair reflects light by the model of Kajiya and Kay (1989).
"""

from functools import lru_cache
from pathlib import Path

import numpy as np

from tools.faces.camera import backdrop, develop
from tools.faces.clothes import cloth_colour, collar, collar_colour, fit, glasses, neck_radius, neckline
from tools.faces.fur import EYE_CENTRE, fur
from tools.faces.hair import CENTRE, Scalp, hair
from tools.faces.people import paired_morphs
from tools.faces.raster import gather, place, rasterise, shadow, texture, turn_head, vertex_normals
from tools.faces.skin import eye_surface, noise_textures, skin_colour, skin_relief, skin_shine
from tools.faces.strands import draw, in_sight, light_strands, nearest_first, splat

ASSET = Path(__file__).resolve().parents[2] / "data/head/head.npz"
SKIN, EYE, LASH, TEETH, CLOTH, FRAME = range(6)
PIVOT = np.array([0.0, 6.2, 0.25])
LOOK, DISTANCE, ZOOM = np.array([0, 7.17, 0.6]), 13.0, 0.30
"""Where the camera looks, how far away it stands (dm), and image widths per dm."""
MAP_SIZE, MAP_WIDTH = 256, 4.2
SKY = np.array([0.0, 0.75, 0.66]) / np.hypot(0.75, 0.66)


def _disc(count: int) -> np.ndarray:
    """Points evenly spread over a unit disc (count×2)."""
    k = np.arange(count)
    return np.sqrt((k + 0.5) / count)[:, None] * np.stack([np.cos(2.4 * k), np.sin(2.4 * k)], 1)


class Head:
    """The head asset, unpacked: base mesh, masks, morphs, the scalp and the neck."""

    def __init__(self, path: Path = ASSET):
        asset = np.load(path)
        self.vertices = asset["vertices"].astype(float)
        self.triangles = asset["triangles"].astype(np.int32)
        self.uv_triangles = asset["uv_triangles"].astype(np.int32)
        self.groups = asset["groups"].astype(np.int32)
        self.masks = np.stack([asset["lips"], asset["eyelids"], asset["ears"]], -1).astype(np.float32) / 255
        self.occlusion = asset["occlusion"].astype(np.float32)[:, None] / 255
        starts = asset["morph_start"]
        self.names = [str(name) for name in asset["morph_name"]]
        index, delta = asset["morph_index"].astype(int), asset["morph_delta"].astype(float)
        self.morphs = {
            n: (index[a:b], delta[a:b]) for n, a, b in zip(self.names, starts[:-1], starts[1:], strict=True)
        }
        self.pairs = paired_morphs(self.names)
        self.skin_triangles = self.triangles[self.groups == SKIN]
        self.lips = np.zeros(len(self.vertices))
        self.lips[self.triangles.ravel()] = self.masks[self.uv_triangles.ravel(), 0]
        self.scalp = Scalp(self.vertices, self.skin_triangles)
        self.neck = neck_radius(self.vertices, self.skin_triangles)
        eye = np.unique(self.triangles[self.groups == EYE])
        self.eyes = [eye[self.vertices[eye, 0] > 0], eye[self.vertices[eye, 0] < 0]]
        aims = np.array([[0.76, 7.3, 0.62], [-0.76, 7.3, 0.62]])
        self.temples = [np.argmin(np.linalg.norm(self.vertices - aim, axis=1)) for aim in aims]
        self.lids = self._lid_edges()
        self.is_skin = np.zeros(len(self.vertices), bool)
        self.is_skin[self.skin_triangles] = True

    def _lid_edges(self, size: int = 700) -> tuple[np.ndarray, np.ndarray]:
        """Places on the edges of the lids: where the skin meets the eye in a picture of the base head."""
        x, y, z = self.vertices.T
        u, v = size * (0.5 + x), size * (0.5 - (y - EYE_CENTRE[1]))
        solid = np.flatnonzero((self.groups == SKIN) | (self.groups == EYE))
        face, weights, _ = rasterise(u, v, z, self.triangles[solid], size, size)
        is_eye = (face >= 0) & (self.groups[solid[face]] == EYE)
        edge = np.zeros_like(is_eye)
        edge[:-1] |= ~is_eye[:-1] & is_eye[1:]
        edge[1:] |= ~is_eye[1:] & is_eye[:-1]
        return self.triangles[solid[face[edge]]], weights[edge]

    def moved(self, weights: dict[str, float], prefix: str = "") -> np.ndarray:
        """Vertex displacements of a set of morph weights."""
        total = np.zeros_like(self.vertices)
        for name, weight in weights.items():
            if weight:
                index, delta = self.morphs[prefix + name]
                total[index] += weight * delta
        return total


@lru_cache(maxsize=1)
def head() -> Head:
    return Head()


def build_person(identity: dict) -> dict:
    """Everything about a person's geometry that doesn't change from photo to photo."""
    asset = head()
    moved = asset.moved(identity["morphs"])
    moved = moved - moved[np.concatenate(asset.eyes)].mean(0)
    collars = [collar(garment, asset.neck) for garment in identity["wardrobe"]]
    for part in collars:
        part["rest"] = part["points"]
        part["points"] = fit(part["points"], asset.vertices, moved)
    style = hair(identity, asset.scalp)
    if style is not None:
        style["points"] = asset.scalp.carry(style["points"], asset.scalp.shift(moved))
    return dict(identity=identity, moved=moved, collars=collars, hair=style, fur=fur(identity, asset))


def _turn(points: np.ndarray, photo: dict) -> np.ndarray:
    """Turn the head about the neck (…×3); shoulders follow only in part."""
    angles = np.radians([photo[k] for k in ("yaw", "pitch", "roll")])
    flat = np.ascontiguousarray(points).reshape(-1, 3)
    return turn_head(flat, angles, PIVOT, 5.7, 6.45).reshape(points.shape)


def _extras(person: dict, photo: dict, shape: np.ndarray) -> list[tuple[dict, int]]:
    """Collar and glasses of one photo."""
    identity, asset = person["identity"], head()
    extras = [(person["collars"][photo["garment"]], CLOTH)]
    if identity["glasses"]:
        eyes, ears = [shape[eye].mean(0) for eye in asset.eyes], shape[asset.temples]
        x, y, _ = asset.vertices.T
        lids = asset.is_skin & (np.abs(y - EYE_CENTRE[1]) < 0.2) & (np.abs(x) < 0.5)
        front = np.percentile(shape[lids, 2], 80)
        extras.append((glasses(identity["glasses"], eyes, ears, front), FRAME))
    return extras


def pose(person: dict, photo: dict) -> dict:
    """All triangles and strands of one photo, turned, with the per-vertex facts that shading needs."""
    asset, identity = head(), person["identity"]
    garment = identity["wardrobe"][photo["garment"]]
    shape = asset.vertices + person["moved"] + asset.moved(photo["units"], "unit/")
    short = person["fur"]
    roots = gather(shape, short["corners"], short["weights"])[:, None] + short["offsets"]
    cloth = np.clip(neckline(asset.vertices, garment) / 0.06, 0, 1) * asset.is_skin
    shape = shape + 0.04 * cloth[:, None] * vertex_normals(shape, asset.triangles)
    points, rest, where = [shape], [asset.vertices], [np.zeros((len(shape), 2))]
    triangles, groups, count = [asset.triangles], [asset.groups], len(shape)
    for part, group in _extras(person, photo, shape):
        points.append(part["points"])
        rest.append(part.get("rest", part["points"]))
        where.append(part.get("where", np.zeros((len(part["points"]), 2))))
        triangles.append(part["triangles"] + count)
        groups.append(np.full(len(part["triangles"]), group))
        count += len(part["points"])
    triangles = np.concatenate(triangles).astype(np.int32)
    world = _turn(np.concatenate(points), photo)
    sideways, upward = np.radians(photo["gaze"])
    ahead = np.array([np.sin(sideways), np.sin(upward), 1.0])
    ahead = _turn(ahead + [0, 7.3, 0], photo) - _turn(np.array([0, 7.3, 0]), photo)
    bundles = [_turn(roots, photo)]
    if person["hair"] is not None:
        bundles.insert(0, _turn(person["hair"]["points"], photo))
    return dict(
        world=world,
        rest=np.concatenate(rest).astype(np.float32),
        where=np.concatenate(where).astype(np.float32),
        triangles=triangles,
        groups=np.concatenate(groups),
        normals=vertex_normals(world, triangles),
        eyes=[_turn(shape[eye].mean(0), photo) for eye in asset.eyes],
        ahead=ahead / np.linalg.norm(ahead),
        bundles=bundles,
        garment=garment,
    )


class DepthMaps:
    """What a light sees of the head and of the hair, as two depth maps, and the share of it that arrives."""

    def __init__(self, scene: dict, light: np.ndarray, hair_points: np.ndarray | None):
        side = np.cross([0, 1.0, 0.001], light)
        side /= np.linalg.norm(side)
        self.basis = np.stack([side, np.cross(light, side), light], 1)
        u, v, depth = self._place(scene["world"])
        a, b, c = scene["triangles"].T
        facing = (u[b] - u[a]) * (v[c] - v[a]) < (u[c] - u[a]) * (v[b] - v[a])
        solid = scene["triangles"][
            (facing & (scene["groups"] <= TEETH) & (scene["groups"] != LASH)) | (scene["groups"] == CLOTH)
        ]
        self.solid = rasterise(u, v, depth, solid, MAP_SIZE, MAP_SIZE)[2]
        self.hair = np.full((MAP_SIZE, MAP_SIZE), -1e9, np.float32)
        if hair_points is not None:
            splat(*self._place(hair_points).reshape(3, *hair_points.shape[:2]), self.hair)

    def _place(self, points: np.ndarray) -> np.ndarray:
        middle = np.array([0, 7.1, 0.5])
        return place(points.reshape(-1, 3), self.basis, middle, MAP_SIZE / MAP_WIDTH, MAP_SIZE)

    def share(self, points, radius: float, bias: float, density: float, taps: int = 9) -> np.ndarray:
        """Share of the light that reaches points (…×3), averaged over a disc of `radius` texels."""
        lit = shadow(*self._place(points), self.solid, self.hair, _disc(taps), radius, bias, density)
        return lit.reshape(points.shape[:-1])


def project(points: np.ndarray, photo: dict, wide: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixel columns, rows and depths (larger is nearer) of points (…×3) in a picture `wide` pixels wide."""
    p = points - LOOK.astype(points.dtype)
    scale = wide * ZOOM * photo["scale"] * DISTANCE / (DISTANCE - p[..., 2])
    x = wide * (0.5 + photo["shift"][0]) + scale * p[..., 0]
    return x, wide * (0.5 + photo["shift"][1]) - scale * p[..., 1], p[..., 2]


def _visible(scene: dict, photo: dict, wide: int) -> tuple[dict, np.ndarray]:
    """What every covered pixel sees: its triangle, place, normal, direction to the camera; and the depths."""
    x, y, z = project(scene["world"], photo, wide)
    a, b, c = scene["triangles"].T
    area = (x[b] - x[a]) * (y[c] - y[a]) - (x[c] - x[a]) * (y[b] - y[a])
    groups = scene["groups"]
    hidden = (groups == LASH) | (((groups == SKIN) | (groups == EYE)) & (area >= 0))
    shown = np.flatnonzero(~hidden)
    face, weights, depth = rasterise(x, y, z, scene["triangles"][shown], wide, wide)
    hit = face >= 0
    index, weights = shown[face[hit]], weights[hit]
    corners = scene["triangles"][index]
    where = gather(scene["world"], corners, weights)
    normal = gather(scene["normals"], corners, weights)
    view = (LOOK + np.array([0, 0, DISTANCE]) - where).astype(np.float32)
    view /= np.linalg.norm(view, axis=1, keepdims=True)
    normal[(normal * view).sum(1) < 0] *= -1
    seen = dict(hit=hit, index=index, weights=weights, corners=corners, group=groups[index])
    seen |= dict(where=where, normal=normal, view=view, rest=gather(scene["rest"], corners, weights))
    return seen, depth


def _paint(person: dict, photo: dict, scene: dict, seen: dict) -> dict:
    """Colour, shine and occlusion of every covered pixel; bends the normals where the surface is rough."""
    asset, identity, group = head(), person["identity"], seen["group"]
    count, noise = len(group), noise_textures()
    paint = dict(colour=np.zeros((count, 3), np.float32), gloss=np.zeros(count, np.float32))
    paint["occlusion"] = np.ones(count, np.float32)
    own = seen["corners"][:, 0] < len(asset.vertices)
    paint["occlusion"][own] = gather(asset.occlusion, seen["corners"][own], seen["weights"][own])[:, 0]
    below = np.where(group == SKIN, neckline(seen["rest"], scene["garment"]), 1.0)
    skin, cloth = (group == SKIN) & (below <= 0), (group == SKIN) & (below > 0)
    rest = seen["rest"][skin]
    masks = gather(asset.masks, asset.uv_triangles[seen["index"][skin]], seen["weights"][skin])
    paint["colour"][skin] = skin_colour(identity, rest, masks)
    paint["colour"][skin] *= (1 - 0.35 * np.exp(below[skin] / 0.05))[:, None]
    paint["gloss"][skin] = skin_shine(identity, rest, masks)
    seen["normal"][skin] += skin_relief(identity, photo, rest, masks)
    rest, turn = seen["rest"][cloth], scene["garment"]["seed"] % 7 / 7
    folds = texture(noise["blotch"], rest[:, 0] * 0.28 + turn, rest[:, 1] * 0.2 + rest[:, 2] * 0.1)
    paint["colour"][cloth] = cloth_colour(scene["garment"], rest, folds, below[cloth])
    seen["normal"][cloth, 0] += 0.10 * folds
    seen["normal"][cloth, 1] += 0.10 * texture(
        noise["blotch"], rest[:, 0] * 0.28 + turn, rest[:, 1] * 0.2 + 0.5
    )
    ring = group == CLOTH
    where = gather(scene["where"], seen["corners"][ring], seen["weights"][ring])
    paint["colour"][ring] = collar_colour(scene["garment"], where)
    paint["colour"][group == TEETH], paint["occlusion"][group == TEETH] = (0.74, 0.63, 0.49), 0.9
    if identity["glasses"]:
        paint["colour"][group == FRAME], paint["gloss"][group == FRAME] = identity["glasses"]["colour"], 0.2
    paint["skin"], paint["glint"] = skin, np.zeros(count, np.float32)
    eye = group == EYE
    if eye.any():
        paint["colour"][eye], seen["normal"][eye], paint["glint"][eye] = eye_surface(
            seen["where"][eye], seen["view"][eye], scene["eyes"], scene["ahead"], identity, photo
        )
    seen["normal"] /= np.linalg.norm(seen["normal"], axis=1, keepdims=True) + 1e-9
    return paint


def _surface_light(photo: dict, seen: dict, paint: dict, lit: np.ndarray, sky: np.ndarray) -> np.ndarray:
    """Linear light of every covered pixel: key light, sky and surroundings, rim light, reflections."""
    normal, view, key = seen["normal"], seen["view"], photo["key"].astype(np.float32)
    skin, occlusion = paint["skin"][:, None], paint["occlusion"]
    warm = np.array([1 + photo["warmth"], 1, 1 - 1.3 * photo["warmth"]], np.float32)
    facing = normal @ key
    wrap = 0.4 * photo["softness"] + np.where(skin, np.array([0.26, 0.13, 0.10], np.float32), np.float32(0.1))
    diffuse = np.clip((facing[:, None] + wrap) / (1 + wrap), 0, 1)
    leak = np.where(skin, np.array([0.92, 1.04, 1.06], np.float32), np.float32(1))
    diffuse *= np.clip(lit, 1e-3, 1)[:, None] ** leak
    open_sky = np.clip(0.1 + 0.95 * occlusion, 0, 1) * (0.4 + 0.6 * sky)
    around = 0.62 + 0.38 * normal[:, 1] + 0.12 * np.clip(-normal[:, 1], 0, 1)
    wall = (0.85 + 0.15 * photo["background"] / photo["background"].mean()).astype(np.float32)
    fill = photo["fill"] * (around * open_sky)[:, None] * wall
    rim_way = np.array([0.8 * photo["rim_side"], 0.3, -0.5], np.float32)
    edge = 1 - np.clip((normal * view).sum(1), 0, 1)
    rim = photo["rim"] * np.clip(normal @ rim_way / 0.98, 0, 1) * edge**1.5 * occlusion
    linear = paint["colour"] * 0.62 * (photo["key_power"] * diffuse * warm + fill + 1.6 * rim[:, None])
    half = key + view
    half /= np.linalg.norm(half, axis=1, keepdims=True)
    shine = np.clip((normal * half).sum(1), 0, 1)
    lobes = shine**12 * 1.6 + 3.2 * shine**48
    gleam = paint["gloss"] * photo["key_power"] * lobes * lit * (1 - 0.55 * photo["softness"])
    gleam = gleam + paint["gloss"] * photo["fill"] * (1.2 * sky * np.clip(normal[:, 1], 0, 1) ** 3)
    gleam = gleam + 1.5 * paint["gloss"] * edge**4 * (photo["fill"] + 2 * photo["rim"]) * occlusion
    linear += gleam[:, None] * warm
    eye = seen["group"] == EYE
    linear[eye] *= np.clip(0.42 + 0.75 * occlusion[eye], 0, 0.95)[:, None]
    linear += (paint["glint"] * (0.3 + 0.22 * photo["key_power"]) * np.clip(0.3 + lit, 0, 1))[:, None]
    return linear


def _segments(
    source: dict, points: np.ndarray, photo: dict, maps: tuple, surface: np.ndarray, sheen
) -> tuple:
    """What `draw` needs to know of the strands in sight: ends, colours at both ends, width, opacity."""
    wide, steps = len(surface), points.shape[1]
    x, y, z = project(points, photo, wide)
    shown = in_sight(x, y, z, surface, 0.1)
    points = np.ascontiguousarray(points[shown], np.float32)
    place = np.stack([x[shown], y[shown], z[shown] + 0.03], -1).astype(np.float32)
    lit = maps[0].share(points, 1.5 + 2 * photo["softness"], 0.06, source["density"], 4)
    sky = 0.25 + 0.75 * maps[1].share(points, 5.0, 0.08, 0.6 * source["density"], 4)
    view = np.array([0.0, 0.05, 1.0])
    lights = (photo["key"], view, lit, sky, 0.65, photo["key_power"], photo["fill"])
    light = light_strands(points, source["colour"][shown], *lights, sheen, CENTRE)
    fade = np.linspace(1, 0.45, steps - 1, dtype=np.float32)
    return (
        place[:, :-1].reshape(-1, 3),
        place[:, 1:].reshape(-1, 3),
        light[:, :-1].reshape(-1, 3),
        light[:, 1:].reshape(-1, 3),
        np.repeat(source["width"][shown] * wide * ZOOM * photo["scale"], steps - 1),
        (source["alpha"][shown, None] * fade).reshape(-1),
    )


def _strand_layer(person: dict, photo: dict, scene: dict, maps: tuple, surface: np.ndarray) -> np.ndarray:
    """Hair, brows, lashes and beard over the picture: premultiplied colour and the light that passes."""
    bundles = [(person["fur"] | {"density": 0.5}, scene["bundles"][-1], 0.012)]
    if person["hair"] is not None:
        bundles.append((person["hair"] | {"density": 7.0}, scene["bundles"][0], 0.032))
    parts = [_segments(source, points, photo, maps, surface, sheen) for source, points, sheen in bundles]
    a, b, colour_a, colour_b, width, alpha = (np.concatenate(part) for part in zip(*parts, strict=True))
    layer = np.zeros((*surface.shape, 4), np.float32)
    layer[..., 3] = 1
    draw(a, b, colour_a, colour_b, width, alpha, nearest_first(a[:, 2]), surface, layer)
    return layer


def render(person: dict, photo: dict, size: int = 128, oversample: int = 2) -> np.ndarray:
    """One photo as uint8 `size`×`size`×3, drawn `oversample` times larger and averaged."""
    scene, wide = pose(person, photo), size * oversample
    seen, depth = _visible(scene, photo, wide)
    hair_points = scene["bundles"][0] if person["hair"] is not None else None
    maps = tuple(DepthMaps(scene, light, hair_points) for light in (photo["key"], SKY))
    paint = _paint(person, photo, scene, seen)
    lifted = seen["where"] + 0.03 * seen["normal"]
    lit = maps[0].share(lifted, 1.5 + 5 * photo["softness"], 0.02, 5.0)
    sky = maps[1].share(lifted, 7.0, 0.03, 2.5)
    inside = seen["group"] == TEETH  # light that enters between the lips
    lit[inside], sky[inside] = np.maximum(lit[inside], 0.6), np.maximum(sky[inside], 0.8)
    picture = backdrop(photo, wide)
    light = _surface_light(photo, seen, paint, lit, sky)
    picture[seen["hit"]] = light
    layer = _strand_layer(person, photo, scene, maps, depth)
    picture = picture * layer[..., 3:] + layer[..., :3]
    # The camera exposes for the face, in part: light skin isn't burnt out, dark skin isn't lost.
    picture *= (0.28 / light[paint["skin"]].mean()) ** 0.6
    return develop(picture, photo, size, person["identity"]["seed"])
