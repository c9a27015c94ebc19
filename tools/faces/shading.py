"""Render a person: pose the head, find what each pixel sees, shade it in linear light.

Shading: wrapped diffuse light whose red wraps furthest (under skin, red light travels furthest), a shadow map
for the key light, traced ambient occlusion, two specular lobes on skin, Kajiya-Kay highlights on hair.
"""

from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates

from tools.faces.hair import CENTRE, Scalp, azimuth, beard_mask, glasses, hair, line_height, noise_textures
from tools.faces.people import paired_morphs
from tools.faces.raster import rasterise, vertex_normals

ASSET = Path(__file__).resolve().parents[2] / "data/head/head.npz"
SKIN, EYE, LASH, TEETH, HAIR, FRAME = range(6)
EYE_CENTRE = np.array([0.31, 7.285, 1.25])
PIVOT = np.array([0.0, 6.2, 0.25])


class Head:
    """The head asset, unpacked: base mesh, masks, morphs and the scalp."""

    def __init__(self, path: Path = ASSET):
        asset = np.load(path)
        self.vertices = asset["vertices"].astype(float)
        self.uvs = asset["uvs"]
        self.triangles = asset["triangles"].astype(np.int32)
        self.uv_triangles = asset["uv_triangles"].astype(np.int32)
        self.groups = asset["groups"].astype(np.int32)
        self.masks = np.stack([asset["lips"], asset["eyelids"], asset["ears"]], -1).astype(np.float32) / 255
        self.occlusion = asset["occlusion"].astype(np.float32) / 255
        starts = asset["morph_start"]
        self.names = [str(name) for name in asset["morph_name"]]
        index, delta = asset["morph_index"].astype(int), asset["morph_delta"].astype(float)
        self.morphs = {
            n: (index[a:b], delta[a:b]) for n, a, b in zip(self.names, starts[:-1], starts[1:], strict=True)
        }
        self.pairs = paired_morphs(self.names)
        skin = self.triangles[self.groups == SKIN]
        self.scalp = Scalp(self.vertices, skin)
        eye = np.unique(self.triangles[self.groups == EYE])
        self.eyes = [eye[self.vertices[eye, 0] > 0], eye[self.vertices[eye, 0] < 0]]
        hidden = np.unique(self.triangles[self.groups != SKIN])
        self.is_skin = np.ones(len(self.vertices), bool)
        self.is_skin[hidden] = False

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
    eyes = np.concatenate(asset.eyes)
    moved = moved - moved[eyes].mean(0)
    beard = beard_mask(asset.vertices, identity["beard"]) * asset.is_skin
    person = dict(identity=identity, moved=moved, beard=beard)
    style = hair(identity, asset.scalp)
    if style is not None:
        style["rest"] = style["points"]
        style["points"] = asset.scalp.carry(style["points"], moved)
    person["hair"] = style
    return person


def _turn(points: np.ndarray, photo: dict, weight: np.ndarray) -> np.ndarray:
    """Turn the head about the neck; shoulders (weight below 1) follow only in part."""
    yaw, pitch, roll = (np.radians(photo[k]) * weight for k in ("yaw", "pitch", "roll"))
    x, y, z = (points - PIVOT).T
    x, y = np.cos(roll) * x - np.sin(roll) * y, np.sin(roll) * x + np.cos(roll) * y
    y, z = np.cos(pitch) * y - np.sin(pitch) * z, np.sin(pitch) * y + np.cos(pitch) * z
    x, z = np.cos(yaw) * x + np.sin(yaw) * z, -np.sin(yaw) * x + np.cos(yaw) * z
    return np.stack([x, y, z], 1) + PIVOT


def _follow(points: np.ndarray) -> np.ndarray:
    return 0.35 + 0.65 * np.clip((points[:, 1] - 5.7) / 0.75, 0, 1)


def _scene(person: dict, photo: dict) -> dict:
    """All triangles of one photo, turned and in world space, with the per-vertex facts that shading needs."""
    asset, identity = head(), person["identity"]
    shape = asset.vertices + person["moved"] + asset.moved(photo["units"], "unit/")
    normals = vertex_normals(shape, asset.triangles)
    grown = {"full": 0.07, "goatee": 0.055, "stubble": 0.008}.get(identity["beard"], 0) * identity["volume"]
    x, y, z = asset.vertices.T
    neck = np.hypot(x / 0.66, (z - 0.12) / 0.62)
    below = identity["collar"] + 0.28 * np.clip(neck - 0.75, 0, 2) - 0.1 * np.clip(z - 0.5, 0, 1) - y
    cloth = 1 / (1 + np.exp(-np.clip(below / 0.012, -40, 40)))
    shape = shape + normals * (person["beard"] * grown + 0.05 * cloth * asset.is_skin)[:, None]
    points, rest, triangles, groups = [shape], [asset.vertices], [asset.triangles], [asset.groups]
    strands, count = [np.zeros((len(shape), 2))], len(shape)
    extra = []
    if person["hair"] is not None:
        extra.append((person["hair"], HAIR))
    if identity["glasses"]:
        left, right = (shape[eye].mean(0) for eye in asset.eyes)
        lids = (
            asset.is_skin
            & (np.abs(asset.vertices[:, 1] - EYE_CENTRE[1]) < 0.2)
            & (np.abs(asset.vertices[:, 0]) < 0.5)
        )
        front = np.percentile(shape[lids, 2], 80)
        extra.append((glasses(identity["glasses"], left, right, front), FRAME))
    for part, group in extra:
        points.append(part["points"])
        rest.append(part.get("rest", part["points"]))
        strands.append(part.get("strand", np.zeros((len(part["points"]), 2))))
        triangles.append(part["triangles"] + count)
        groups.append(np.full(len(part["triangles"]), group))
        count += len(part["points"])
    points, rest, strands = np.concatenate(points), np.concatenate(rest), np.concatenate(strands)
    triangles, groups = np.concatenate(triangles).astype(np.int32), np.concatenate(groups)
    world = _turn(points, photo, _follow(rest))
    gaze = [_turn(np.stack([shape[eye].mean(0)]), photo, np.ones(1))[0] for eye in asset.eyes]
    return dict(
        world=world,
        rest=rest,
        strand=strands,
        triangles=triangles,
        groups=groups,
        cloth=cloth,
        eye_centres=gaze,
        normals=vertex_normals(world, triangles),
        skin_vertices=len(shape),
        eye_radius=[np.linalg.norm(shape[eye] - shape[eye].mean(0), axis=1).max() for eye in asset.eyes],
    )


def _shadow(
    scene: dict, key: np.ndarray, where: np.ndarray, normal: np.ndarray, size: int = 288
) -> np.ndarray:
    """Share of the key light that reaches points (0-1): a shadow map, softly filtered."""
    side = np.cross([0, 1.0, 0], key)
    side /= np.linalg.norm(side)
    up = np.cross(key, side)
    basis = np.stack([side, up, key], 1)
    middle = np.array([0, 7.1, 0.5])
    solid = scene["triangles"][(scene["groups"] != LASH) & (scene["groups"] != FRAME)]
    p = (scene["world"] - middle) @ basis
    scale = size / 4.2
    x, y = size / 2 + p[:, 0] * scale, size / 2 - p[:, 1] * scale
    _, _, depth = rasterise(x, y, p[:, 2], solid, size, size)
    q = (where + 0.03 * normal - middle) @ basis
    u, w = size / 2 + q[:, 0] * scale - 0.5, size / 2 - q[:, 1] * scale - 0.5
    lit = np.zeros(len(where))
    taps = [(0, 0), (1.6, 0.5), (-1.6, -0.5), (0.5, -1.6), (-0.5, 1.6)]
    for du, dv in taps:
        col = np.clip(np.rint(u + du).astype(int), 0, size - 1)
        line = np.clip(np.rint(w + dv).astype(int), 0, size - 1)
        lit += np.clip(1 - (depth[line, col] - q[:, 2] - 0.02) / 0.05, 0, 1)
    return lit / len(taps)


def _sample(texture: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Bilinear lookup in a periodic texture; coordinates in periods."""
    size = texture.shape[0]
    return map_coordinates(texture, [v % 1 * size, u % 1 * size], order=1, mode="grid-wrap")


def _mix(a: np.ndarray, b: np.ndarray, share: np.ndarray) -> np.ndarray:
    return a + (b - a) * np.clip(share, 0, 1)[:, None]


def _skin_colour(
    identity: dict, rest: np.ndarray, masks: np.ndarray, beard: np.ndarray, cloth: np.ndarray
) -> np.ndarray:
    """Albedo at points of the base head: tone, blush, lips, brows, freckles, stubble, scalp, shirt."""
    blotch, strand = noise_textures()
    x, y, z = rest.T
    ax = np.abs(x)
    tone = identity["skin"]
    colour = tone * (
        1 + 0.05 * _sample(blotch, x * 0.6 + 0.1 * identity["seed"], y * 0.6)[:, None] * np.array([0.6, 1, 1])
    )
    red = tone * np.array([1.12, 0.72, 0.72])
    cheeks = np.exp(-((ax - 0.46) ** 2 + (y - 6.98) ** 2) / 0.03) + 0.9 * np.exp(
        -(ax**2 + (y - 6.99) ** 2) / 0.012
    )
    colour = _mix(colour, red, (0.25 + identity["blush"]) * cheeks + 0.5 * masks[:, 2])
    under = np.exp(-(((ax - 0.3) / 0.16) ** 2 + ((y - 7.14) / 0.055) ** 2))
    colour = _mix(colour, tone * np.array([0.8, 0.7, 0.72]), (0.25 + 0.4 * identity["old"]) * under)
    if identity["freckles"]:
        spots = _sample(blotch, x * 3.1, y * 3.1) > 0.95
        near = np.exp(-((ax / 0.62) ** 4) - ((y - 7.0) / 0.24) ** 2) * (z > 0.9)
        colour = _mix(colour, tone * np.array([0.62, 0.45, 0.36]), identity["freckles"] * spots * near)
    lip = tone * np.array([0.95, 0.5, 0.5]) + np.array([0.05, 0.0, 0.005])
    colour = _mix(colour, lip, masks[:, 0] * (0.35 + identity["lip_tint"] * 0.7))
    colour = _mix(colour, tone * np.array([0.72, 0.6, 0.58]), masks[:, 1] * 0.35 * (1 + identity["lash"]))

    brow = identity["brow"]
    along = (ax - 0.14) / 0.40
    middle = 7.485 + brow["lift"] + brow["arch"] * (1 - ((along - 0.55) / 0.55) ** 2) - 0.035 * along**2
    breadth = brow["thick"] * np.interp(along, [0, 0.12, 0.6, 1.0], [0.75, 1.05, 0.9, 0.3])
    fur = (
        np.exp(-(np.abs((y - middle) / breadth) ** 3.0))
        / (1 + np.exp(-along / 0.04))
        / (1 + np.exp((along - 0.98) / 0.03))
    )
    fur = fur * (z > 0.9) * (0.85 + 0.15 * _sample(strand, along * 0.35 + y * 0.8, along * 0.2))
    hair_colour = identity["hair"]
    dark = np.minimum(hair_colour * 0.7, tone * 0.3)
    colour = _mix(colour, dark, fur * brow["dark"])

    if identity["beard"]:
        grain = 0.9 + 0.1 * _sample(blotch, x * 4 + z, y * 2.5)
        share = beard * grain * (0.45 if identity["beard"] == "stubble" else 0.97) * identity["beard_dark"]
        share = share * (1 - masks[:, 0])
        colour = _mix(colour, dark * (0.6 + 0.5 * grain)[:, None], share)

    line = line_height(azimuth(rest), identity)
    soft = 0.05 if identity["style"] == "shaved" else 0.03
    grow = 1 / (1 + np.exp(-(y - line - 0.02) / soft))
    over_ear = (ax > 0.76) & (np.abs(y - 7.2) < 0.42)
    grow = grow * ~over_ear * (y > 6.5)
    share = grow * (0.62 if identity["style"] == "shaved" else 0.93)
    colour = _mix(colour, hair_colour * 0.8, share * (0.9 + 0.1 * _sample(blotch, x * 3, y * 3 + z)))
    weave = 1 + 0.05 * _sample(strand, x * 4, y * 0.2)
    return _mix(colour, identity["shirt"] * weave[:, None], cloth)


def _eye_colour(scene: dict, identity: dict, photo: dict, where: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Albedo and shading normal of eyeballs: white, iris with a limbal ring, pupil."""
    colour = np.tile(np.array([0.62, 0.57, 0.54]), (len(where), 1))
    normal = np.zeros_like(where)
    sideways, upward = np.radians(photo["gaze"])
    ahead = np.array([[np.sin(sideways), np.sin(upward), 1.0]])
    ahead = (_turn(ahead + PIVOT, photo, np.ones(1)) - PIVOT)[0]
    ahead /= np.linalg.norm(ahead)
    nearest = np.argmin([np.linalg.norm(where - c, axis=1) for c in scene["eye_centres"]], 0)
    for k, centre in enumerate(scene["eye_centres"]):
        mine = nearest == k
        out = where[mine] - centre
        normal[mine] = out / np.linalg.norm(out, axis=1, keepdims=True)
        off = np.arccos(np.clip(normal[mine] @ ahead, -1, 1))
        iris = 1 / (1 + np.exp((off - 0.5) / 0.02))
        rim = np.exp(-(((off - 0.47) / 0.06) ** 2))
        pupil = 1 / (1 + np.exp((off - 0.2) / 0.015))
        own = identity["eyes"] * (1.15 - 0.7 * rim + 0.5 * np.exp(-(((off - 0.28) / 0.07) ** 2)))[:, None]
        here = _mix(colour[mine], own, iris)
        colour[mine] = _mix(here, np.full(3, 0.004), pupil)
    return colour, normal


def render(person: dict, photo: dict, size: int = 64, oversample: int | None = None) -> np.ndarray:
    """One photo as uint8 `size`×`size`×3, drawn `oversample` times larger and averaged."""
    oversample = oversample or (3 if size <= 96 else 2)
    identity, asset = person["identity"], head()
    scene = _scene(person, photo)
    wide = size * oversample
    key, world, triangles = photo["key"], scene["world"], scene["triangles"]
    exposure = 1 + 0.35 * np.clip(1 - identity["skin"].mean() / 0.25, 0, 1)
    distance = 13.0
    look = np.array([0, 7.22, 0.6])
    p = world - look
    scale = wide * 0.322 * photo["scale"]
    near = distance / (distance - p[:, 2])
    x = wide * (0.5 + photo["shift"][0]) + scale * p[:, 0] * near
    y = wide * (0.47 + photo["shift"][1]) - scale * p[:, 1] * near
    a, b, c = triangles.T
    area = (x[b] - x[a]) * (y[c] - y[a]) - (x[c] - x[a]) * (y[b] - y[a])
    one_sided = (scene["groups"] == SKIN) | (scene["groups"] == EYE)
    shown = np.flatnonzero(~(one_sided & (area >= 0)))
    face, weights, _ = rasterise(x, y, p[:, 2], triangles[shown], wide, wide)
    hit = face >= 0
    index, w = shown[face[hit]], weights[hit][..., None]
    corners = triangles[index]
    group = scene["groups"][index]
    where = (world[corners] * w).sum(1)
    rest = (scene["rest"][corners] * w).sum(1)
    normal = (scene["normals"][corners] * w).sum(1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9
    view = look + np.array([0, 0, distance]) - where
    view /= np.linalg.norm(view, axis=1, keepdims=True)

    count = len(index)
    colour = np.zeros((count, 3))
    gloss, rough = np.zeros(count), np.ones(count)
    occlusion = np.ones(count)
    own = corners[:, 0] < scene["skin_vertices"]
    occlusion[own] = (asset.occlusion[corners[own]] * w[own][..., 0]).sum(1)

    skin = group == SKIN
    uv_corner = asset.uv_triangles[index[skin]]
    masks = (asset.masks[uv_corner] * w[skin]).sum(1)
    beard = (person["beard"][corners[skin]] * w[skin][..., 0]).sum(1)
    cloth = (scene["cloth"][corners[skin]] * w[skin][..., 0]).sum(1)
    colour[skin] = _skin_colour(identity, rest[skin], masks, beard, cloth)
    gloss[skin] = 0.028 * (1 - cloth) * (1 - 0.8 * beard) * (1 + 1.2 * masks[:, 0])
    rough[skin] = 14
    blotch, strand = noise_textures()
    bump = 0.03 * (1 - cloth) + 0.25 * beard
    normal[skin, 0] += bump * _sample(blotch, rest[skin, 0] * 2.2, rest[skin, 1] * 2.2)
    normal[skin, 1] += bump * _sample(blotch, rest[skin, 0] * 2.2 + 0.37, rest[skin, 1] * 2.2 + 0.11)

    eye = group == EYE
    if eye.any():
        colour[eye], normal[eye] = _eye_colour(scene, identity, photo, where[eye])
        gloss[eye], rough[eye] = 0.5, 220
    colour[group == LASH] = _mix(
        np.tile(identity["skin"] * 0.5, ((group == LASH).sum(), 1)),
        np.full(3, 0.008),
        np.full((group == LASH).sum(), identity["lash"]),
    )
    colour[group == TEETH] = np.array([0.62, 0.58, 0.5])
    frame = group == FRAME
    if frame.any():
        colour[frame], gloss[frame], rough[frame] = identity["glasses"]["colour"], 0.25, 60

    strands = group == HAIR
    if strands.any():
        uv = scene["strand"]
        u = uv[corners[strands], 0]
        u = np.where(u < u.max(1, keepdims=True) - 0.5, u + 1, u)
        u = (u * w[strands][..., 0]).sum(1)
        v = (uv[corners[strands], 1] * w[strands][..., 0]).sum(1)
        curly = identity["style"] in ("curly", "afro")
        fibre = _sample(blotch, u * 6, v * 3.2) if curly else _sample(strand, u * 5, v * 0.8)
        colour[strands] = identity["hair"] * np.clip(1 + 0.22 * fibre, 0.3, 1.8)[:, None]
        back = (normal[strands] * view[strands]).sum(1) < 0
        flipped = normal[strands]
        flipped[back] *= -1
        if curly:
            radial = where[strands] - CENTRE
            flipped = flipped * 0.6 + 0.6 * radial / np.linalg.norm(radial, axis=1, keepdims=True)
        normal[strands] = flipped
        depth_cue = 0.55 + 0.45 * np.clip((rest[strands, 1] - 5.6) / 1.8, 0, 1)
        occlusion[strands] = np.where(back, 0.28, depth_cue * (0.88 + 0.12 * np.clip(fibre, -1, 1)))
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9

    lit = _shadow(scene, key, where, normal)
    facing = normal @ key
    wrap = photo["softness"] * 0.5 + np.where(skin[:, None], np.array([0.30, 0.18, 0.14]), 0.15)
    diffuse = np.clip((facing[:, None] + wrap) / (1 + wrap), 0, 1)
    diffuse *= np.clip(
        lit[:, None] + (1 - lit[:, None]) * (0.25 * photo["softness"] + np.array([0.03, 0.02, 0.015])), 0, 1
    )
    warm = np.array([1 + photo["warmth"], 1, 1 - photo["warmth"]])
    sky = 0.62 + 0.38 * normal[:, 1:2]
    bounce = 0.25 * np.clip(-normal[:, 1:2], 0, 1) * np.array([1.0, 0.9, 0.82])
    open_sky = np.clip(0.12 + 0.95 * occlusion, 0, 1)[:, None] ** np.array([0.96, 1.06, 1.08])
    fill = (
        photo["fill"]
        * (sky + bounce)
        * open_sky
        * (0.7 + 0.3 * photo["background"] / photo["background"].mean())
    )
    half = key + view
    half /= np.linalg.norm(half, axis=1, keepdims=True)
    shine = np.clip((normal * half).sum(1), 0, 1)
    edge = (1 - np.clip((normal * view).sum(1), 0, 1)) ** 4
    specular = gloss * (shine**rough * (rough + 2) / 8 + 0.35 * shine ** (rough * 4) * (skin * 2.5)) * lit
    specular = specular + 0.05 * edge * photo["fill"] * skin * occlusion
    if strands.any():
        down = np.array([0, -1.0, 0])
        tangent = down - normal[strands] * (normal[strands] @ down)[:, None]
        if identity["style"] not in ("curly", "afro"):
            radial = where[strands] - (CENTRE + np.array([0, 0.9, 0]))
            over_scalp = np.clip((rest[strands, 1] - 7.2) / 0.7, 0, 1)[:, None]
            tangent = over_scalp * radial + (1 - over_scalp) * tangent
        tangent /= np.linalg.norm(tangent, axis=1, keepdims=True) + 1e-9
        sine = np.sqrt(np.clip(1 - (tangent * half[strands]).sum(1) ** 2, 0, 1))
        sheen = (0.035 * sine**60 + 0.02 * sine**12) * (0.3 if curly else 1.0)
        specular[strands] = (
            sheen * lit[strands] * np.clip(facing[strands] + 0.3, 0, 1) * np.clip(1 + 0.5 * fibre, 0, 2)
        )
    linear = colour * (photo["key_power"] * diffuse * warm * 0.62 + fill * 0.62)
    tint = np.where(strands[:, None], 0.5 + colour / (colour.max(1, keepdims=True) + 1e-6) * 0.5, 1.0)
    linear += (specular * photo["key_power"])[:, None] * tint * warm
    eye_shade = np.clip(0.25 + 1.05 * occlusion, 0, 1)
    linear[eye] *= eye_shade[eye, None]
    linear[group == TEETH] *= np.clip(occlusion[group == TEETH] * 1.6, 0.15, 1)[:, None]

    picture = _background(photo, wide)
    picture[hit] = linear * exposure
    picture = picture / (1 + 0.18 * picture) * 1.08
    if oversample > 1:
        picture = picture.reshape(size, oversample, size, oversample, 3).mean((1, 3))
    grain = np.random.default_rng([14, identity["seed"], photo["seed"]]).normal(0, 0.004, picture.shape)
    return np.rint(255 * np.clip(np.clip(picture, 0, 1) ** (1 / 2.2) + grain, 0, 1)).astype(np.uint8)


def _background(photo: dict, wide: int) -> np.ndarray:
    """A wall out of focus in the photo's background colour, lit from the key light's side."""
    rng = np.random.default_rng([15, photo["seed"]])
    coarse = gaussian_filter(rng.normal(0, 1, (12, 12)), 1.2)
    soft = np.asarray(
        Image.fromarray((coarse / coarse.std()).astype(np.float32)).resize((wide, wide), Image.BICUBIC)
    )
    ramp = np.linspace(-1, 1, wide)
    level = 0.8 * (1 - 0.16 * ramp[:, None] + 0.2 * photo["key"][0] * ramp[None] + 0.07 * soft)
    level = level * (0.62 + 0.38 * min(photo["key_power"] + photo["fill"], 2.2) / 2.2)
    return photo["background"] * level[..., None] * 1.05
