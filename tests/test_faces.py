"""The face renderer in tools/: geometry against brute force, captions, and the committed people."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from train_sd import WORDS, make_tokenizer

from antipure_lib.data import data_path, identities, load_faces
from antipure_lib.judge import Judge
from tools.faces.hair import CENTRE, COLUMNS, ROWS, hair
from tools.faces.people import (
    BACKGROUNDS,
    HAIR_COLOURS,
    LENGTH,
    LIGHTS,
    STYLES,
    caption,
    sample_identity,
    sample_photo,
)
from tools.faces.raster import cast, rasterise, vertex_normals
from tools.faces.render import HELD_OUT, photos_of
from tools.faces.shading import head


def inside(p, a, b, c):
    """Barycentric weights of p from the linear system, not from the rasteriser's formula."""
    return np.linalg.solve(np.array([[a[0], b[0], c[0]], [a[1], b[1], c[1]], [1, 1, 1]]), np.array([*p, 1.0]))


def test_rasterise_agrees_with_brute_force():
    rng = np.random.default_rng(0)
    points = rng.uniform(-3, 19, (24, 3))
    triangles = rng.integers(0, 24, (12, 3)).astype(np.int32)
    triangles = triangles[[len(set(t)) == 3 for t in triangles.tolist()]]
    face, weights, depth = rasterise(*points.T, triangles, 16, 16)
    for row, col in np.ndindex(16, 16):
        hits = {}
        for t, corners in enumerate(points[triangles]):
            w = inside((col + 0.5, row + 0.5), *corners[:, :2])
            if (w >= 0).all():
                hits[t] = w @ corners[:, 2]
        seen = face[row, col]
        if not hits:
            assert seen == -1
        else:  # the nearest one; where two meet, either
            assert hits[seen] == pytest.approx(max(hits.values()), abs=1e-6)
            assert depth[row, col] == pytest.approx(hits[seen], abs=1e-4)
            w = inside((col + 0.5, row + 0.5), *points[triangles[seen], :2])
            np.testing.assert_allclose(weights[row, col], w, atol=1e-5)


def test_rays_meet_a_plane_where_they_should():
    plane = np.array([[[-9.0, -9, 2], [9, -9, 2], [0, 9, 2]]])
    directions = np.array([[0, 0, 1.0], [0.6, 0, 0.8], [0, 0, -1.0]])
    corners = plane[:, 0]
    found = cast(np.zeros(3), directions, corners, plane[:, 1] - corners, plane[:, 2] - corners, 99.0)
    np.testing.assert_allclose(found, [2, 2.5, 99], rtol=1e-5)


def test_normals_of_a_sphere_point_outwards():
    asset = head()
    eye = asset.eyes[0]
    normals = vertex_normals(asset.vertices, asset.triangles)[eye]
    out = asset.vertices[eye] - asset.vertices[eye].mean(0)
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    assert (normals * out).sum(1).min() > 0.8


def test_morphs_add_up():
    asset = head()
    name = "nose/nose-hump-incr"
    one, two = asset.moved({name: 1.0}), asset.moved({name: 2.0})
    assert np.abs(one).max() > 0.01
    np.testing.assert_allclose(two, 2 * one)


@pytest.mark.parametrize("style", [style for style in STYLES if style != "shaved"])
def test_hair_is_closed_and_stays_outside_the_skull(style):
    identity = sample_identity(8000, head().pairs) | {"style": style}
    scalp = head().scalp
    grown = hair(identity, scalp)
    points, triangles = grown["points"], grown["triangles"]
    # Closed around the head: every edge of the columns' grid borders two triangles, except at the crown and
    # the tips.
    ring = points[: ROWS * COLUMNS].reshape(ROWS, COLUMNS, 3)
    edges = np.sort(
        np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]), axis=1
    )
    edges = edges[edges.max(1) < ROWS * COLUMNS]
    found, count = np.unique(edges, axis=0, return_counts=True)
    rows = found // COLUMNS
    rim = (rows[:, 0] == rows[:, 1]) & np.isin(rows[:, 0], (0, ROWS - 1))
    assert (count[rim] == 1).all() and (count[~rim] == 2).all()
    # Outside: the column's points at least as far from the centre as the scalp below them.
    out = ring[: ROWS // 2] - CENTRE
    distance = np.linalg.norm(out, axis=-1)
    polar = np.arccos(out[..., 1] / distance)
    below = np.stack([np.interp(polar[:, k], scalp.polar, scalp.radius[:, k]) for k in range(COLUMNS)], 1)
    assert (distance - below).min() > -1e-3


def test_every_word_of_a_caption_is_one_token(tmp_path):
    tokenizer = make_tokenizer(tmp_path)
    for word in WORDS:
        assert len(tokenizer.tokenize(word)) == 1, word
    for seed in range(40):
        identity = sample_identity(seed, head().pairs)
        text = caption(identity, sample_photo(0, identity))
        words = text.replace(",", " ,").split()
        assert len(tokenizer.tokenize(text)) == len(words) <= tokenizer.model_max_length - 2


def test_captions_say_only_what_is_listed():
    """Hair, beard, glasses, smile, background, light: no word for ethnicity, skin, sex or age can slip in."""
    listed = "a photo of person with hair beard glasses smiling background".split()
    listed += [
        word for text in (*HAIR_COLOURS, *LENGTH.values(), *BACKGROUNDS, *LIGHTS) for word in text.split()
    ]
    texts = list(json.loads(data_path("faces", "captions.json").read_text()).values())
    for seed in range(60):
        identity = sample_identity(seed, head().pairs)
        texts.append(caption(identity, sample_photo(0, identity)))
    assert {word for text in texts for word in text.replace(",", "").split()} <= set(listed)


def test_committed_people_come_out_of_the_renderer_again():
    pictures, texts = photos_of(HELD_OUT[0], 2, 64)
    captions = json.loads(data_path("faces", "captions.json").read_text())
    for k, (picture, text) in enumerate(zip(pictures, texts, strict=True)):
        stored = np.asarray(Image.open(data_path("faces", "p01", f"A{k + 1}.png")))
        # Processors round differently, which may move an edge pixel.
        assert (np.abs(picture.astype(int) - stored) > 2).mean() < 0.01
        assert captions[f"p01/A{k + 1}.png"] == text


def test_dlib_finds_and_tells_apart_the_committed_people():
    judge = Judge()
    people = identities()
    faces = torch.cat([judge.embed(load_faces(person, s)) for person in people for s in "BC"])
    names = torch.arange(len(people)).repeat_interleave(8)
    found = ~faces.isnan().any(1)
    assert found.float().mean() >= 0.98
    faces, names = faces[found], names[found]
    distance, same = torch.cdist(faces, faces), names[:, None] == names[None]
    off = ~torch.eye(len(names), dtype=torch.bool)
    assert (distance[same & off] <= judge.threshold).float().mean() > 0.8
    assert (distance[~same] <= judge.threshold).float().mean() < 0.05
