"""The judges against independent references: the public figures of a real face, closed forms, other code."""

import hashlib
import importlib
import io
import json
import pickle
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file

from antipure_lib.core.images import from_pil
from antipure_lib.judges import faces as judge_module
from antipure_lib.judges.faces import Judge
from antipure_lib.judges.lpips import LPIPS
from antipure_lib.models.embedded import data_path
from tools.models import get_lpips

judge = Judge()
no_weights = importlib.util.find_spec("face_recognition_models") is None
no_dlib = no_weights or importlib.util.find_spec("dlib") is None
needs_dlib = pytest.mark.skipif(no_dlib, reason="dlib-bin or face-recognition-models is not installed")


def noise(n: int = 2, size: int = 64, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def photo() -> torch.Tensor:
    """A real face (skimage's astronaut): 3×200×200, the face's box about (53, 53, 141, 141)."""
    data = pytest.importorskip("skimage.data")
    return from_pil(Image.fromarray(data.astronaut()))[:, 30:230, 126:326]


def at(photo: torch.Tensor, size: int) -> torch.Tensor:
    return F.interpolate(photo[None], size=(size, size), mode="bicubic", antialias=True).clamp(0, 1)[0]


@needs_dlib
@pytest.mark.parametrize("size", [64, 96, 200, 512])
def test_a_face_is_found_at_its_place_at_any_size(photo, size):
    (box,) = judge.detect(at(photo, size))
    centre = np.array([box[0] + box[2], box[1] + box[3]]) / 2 / size
    assert np.allclose(centre, [97 / 200, 97 / 200], atol=0.05)
    assert np.allclose([box[2] - box[0], box[3] - box[1]], 88 / 200 * size, rtol=0.2)


@needs_dlib
def test_the_largest_of_two_faces_is_taken(photo):
    canvas = torch.full((3, 300, 500), 0.5)
    canvas[:, :120, :120] = at(photo, 120)
    canvas[:, :, 200:] = at(photo, 300)
    (box,) = judge.detect(canvas)
    assert box[0] > 200 and box[2] - box[0] > 100


@needs_dlib
@pytest.mark.parametrize("shape", [(1, 1), (7, 300), (2, 5000)])
def test_odd_shapes_have_no_face_and_do_not_crash(shape):
    assert judge.detect(torch.rand(3, *shape, generator=torch.Generator().manual_seed(0))) == [None]


@needs_dlib
def test_embeddings_tell_faces_from_no_face_and_repeat_bit_for_bit(photo):
    face = at(photo, 64)
    images = torch.stack([face, noise(1)[0], face])
    embeddings = judge.embed(images)
    assert embeddings.shape == (3, 128) and embeddings.dtype == torch.float32
    assert embeddings[1].isnan().all() and embeddings[[0, 2]].isfinite().all()
    assert torch.equal(embeddings.nan_to_num(), Judge().embed(images).nan_to_num())
    assert torch.equal(embeddings[0], embeddings[2])
    assert torch.equal(embeddings[0], judge.embed(face)[0])


@needs_dlib
def test_embedding_is_dlibs_own(photo):
    """At 256 px nothing is resized, so dlib's plain interface must give the same numbers."""
    import dlib

    image = at(photo, 256)
    pixels = np.ascontiguousarray((image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))
    face = max(dlib.get_frontal_face_detector()(pixels), key=lambda box: box.area())
    points = judge._landmarks(pixels, face)
    assert points.num_parts == 5
    expected = np.array(judge._recogniser.compute_face_descriptor(pixels, points))
    assert np.allclose(judge.embed(image)[0].numpy(), expected, atol=1e-5)


@needs_dlib
def test_the_same_face_darker_and_smaller_is_nearer_than_dlibs_threshold(photo):
    assert judge.distance(at(photo, 64) * 0.8, photo).item() < 0.6
    assert judge.ism(at(photo, 64) * 0.8, photo) > 0.9
    assert judge.ism(photo, photo) == pytest.approx(1, abs=1e-6)
    assert judge.distance(photo, photo).item() == pytest.approx(0, abs=1e-6)


@needs_dlib
def test_noise_has_no_identity(photo):
    images = noise(3)
    assert judge.fdfr(images) == 1.0
    assert np.isnan(judge.ism(images, photo))
    assert judge.distance(images, photo).isnan().all()
    assert np.isnan(judge.ism(photo, images))


def test_identity_scores_are_their_formulas():
    """On made-up embeddings: numpy's arithmetic, undetected faces left out."""
    random = np.random.default_rng(0)
    generated, reference = random.normal(size=(5, 128)), random.normal(size=(4, 128))
    generated[1], reference[2] = np.nan, np.nan
    seen, clean = np.delete(generated, 1, axis=0), np.delete(reference, 2, axis=0)
    a, b = torch.from_numpy(generated).float(), torch.from_numpy(reference).float()

    mean = clean.mean(axis=0)
    cosines = seen @ mean / np.linalg.norm(seen, axis=1) / np.linalg.norm(mean)
    assert judge.ism(a, b) == pytest.approx(cosines.mean(), abs=1e-6)

    expected = np.array([np.mean([np.linalg.norm(x - y) for y in clean]) for x in generated])
    assert np.allclose(judge.distance(a, b).numpy(), expected, rtol=1e-5, equal_nan=True)
    assert judge.fdfr(a) == pytest.approx(1 / 5)


def test_same_person_counts_images_without_a_face_as_strangers():
    strict = Judge()
    strict.calibration = {"threshold": 0.5}
    reference = torch.zeros(2, 128)
    generated = torch.zeros(4, 128)
    generated[:, 0] = torch.tensor([0.1, 0.5, 0.51, 0.1])
    generated[3] = torch.nan
    assert strict.same_person(generated, reference) == pytest.approx(2 / 4)
    assert np.isnan(strict.same_person(generated, torch.full((2, 128), torch.nan)))


def test_threshold_comes_from_the_calibration_file(monkeypatch, tmp_path):
    path = tmp_path / "calibration.json"
    monkeypatch.setattr(judge_module, "data_path", lambda *parts: path)
    path.write_text(json.dumps({"threshold": 0.41, "fpr": 0.01}))
    assert Judge().threshold == 0.41


@pytest.mark.parametrize(
    ("module", "call", "command"),
    [
        ("dlib", lambda j: j.detect(noise()), "pip install dlib-bin"),
        ("skimage.metrics", lambda j: j.ssim(noise(), noise()), "pip install scikit-image"),
        ("flip_evaluator", lambda j: j.flip(noise(), noise()), "pip install flip-evaluator"),
    ],
)
def test_a_missing_package_is_named_with_its_remedy(monkeypatch, module, call, command):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModuleNotFoundError, match=command):
        call(Judge())


def test_missing_face_models_are_named_with_their_remedy(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install --no-deps face-recognition-models"):
        judge_module._model_path("shape_predictor_5_face_landmarks.dat")


@pytest.mark.parametrize("metric", [judge.lpips, judge.ssim, judge.psnr, judge.flip])
def test_metrics_refuse_what_they_cannot_compare(metric):
    with pytest.raises(ValueError, match="shape"):
        metric(noise(2), noise(1))
    with pytest.raises(ValueError, match="y must lie in"):
        metric(noise(), noise() * 255)


def test_too_small_images_are_refused():
    with pytest.raises(ValueError, match="31 px"):
        judge.lpips(noise(size=30), noise(size=30))
    with pytest.raises(ValueError, match="11 px"):
        judge.ssim(noise(size=10), noise(size=10))
    with pytest.raises(ValueError, match="embed"):
        judge.fdfr(torch.zeros(2, 64))


def by_numpy(x: torch.Tensor, y: torch.Tensor) -> np.ndarray:
    """LPIPS once more from the shipped file, in float64: convolutions as products over unfolded patches."""
    file = load_file(data_path("judges", "lpips_alex.safetensors"))
    weights = {name: weight.double().numpy() for name, weight in file.items()}

    def patches(h, size, stride, padding, fill):
        h = np.pad(h, ((0, 0), (0, 0), (padding, padding), (padding, padding)), constant_values=fill)
        windows = np.lib.stride_tricks.sliding_window_view(h, (size, size), axis=(2, 3))
        return windows[:, :, ::stride, ::stride]

    def features(image):
        mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
        h = (image.double().numpy() - mean[:, None, None]) / std[:, None, None]
        found = []
        shapes = [(11, 4, 2), (5, 1, 2), (3, 1, 1), (3, 1, 1), (3, 1, 1)]
        for layer, (size, stride, padding) in enumerate(shapes, 1):
            if layer in (2, 3):
                h = patches(h, 3, 2, 0, -np.inf).max(axis=(-1, -2))
            kernel, bias = weights[f"conv{layer}.weight"], weights[f"conv{layer}.bias"]
            h = np.einsum("nchwij,ocij->nohw", patches(h, size, stride, padding, 0), kernel, optimize=True)
            h = np.maximum(h + bias[:, None, None], 0)
            found.append(h)
        return found

    total = 0
    for layer, (a, b) in enumerate(zip(features(x), features(y), strict=True), 1):
        cosine_parts = [h / np.maximum(np.sqrt((h**2).sum(axis=1, keepdims=True)), 1e-10) for h in (a, b)]
        squared = (cosine_parts[0] - cosine_parts[1]) ** 2
        total = total + np.einsum("nchw,c->nhw", squared, weights[f"head{layer}"]).mean(axis=(1, 2))
    return total


@pytest.mark.parametrize("size", [31, 64])
def test_lpips_equals_an_independent_computation(size):
    x, y = noise(2, size, seed=1), noise(2, size, seed=2)
    y[1] = (x[1] + 0.1 * (y[1] - 0.5)).clamp(0, 1)
    # the authors' rounded shift and scale are 1e-3 off ImageNet's, hence the tolerance
    assert np.allclose(judge.lpips(x, y).numpy(), by_numpy(x, y), rtol=1e-2)


def test_lpips_can_be_differentiated_and_trains_nothing():
    x = noise().requires_grad_()
    model = LPIPS()
    model(x, noise(seed=1)).sum().backward()
    assert x.grad.isfinite().all() and x.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in model.parameters())


def test_the_data_card_names_the_weights_that_are_there():
    digest = hashlib.sha256(data_path("judges", "lpips_alex.safetensors").read_bytes()).hexdigest()
    assert digest in data_path("judges", "README.md").read_text(encoding="utf-8")


def test_psnr_is_its_closed_form():
    x = torch.full((2, 3, 16, 16), 0.5)
    y = x + torch.tensor([0.1, 0.01]).view(2, 1, 1, 1)
    assert torch.allclose(judge.psnr(x, y), torch.tensor([20.0, 40.0]), atol=1e-3)
    assert judge.psnr(x, x).isinf().all()


def test_ssim_equals_its_formula_on_flat_images():
    pytest.importorskip("skimage")
    x, y = torch.full((1, 3, 16, 16), 0.2), torch.full((1, 3, 16, 16), 0.6)
    c1 = 0.01**2
    assert judge.ssim(x, y).item() == pytest.approx((2 * 0.2 * 0.6 + c1) / (0.2**2 + 0.6**2 + c1), rel=1e-4)
    assert torch.allclose(judge.ssim(noise(), noise()), torch.ones(2))


def test_flip_of_random_sign_noise_has_its_known_size(photo):
    pytest.importorskip("flip_evaluator")
    x = at(photo, 64)
    sign = (noise(1, seed=3)[0] < 0.5).float() * 2 - 1
    errors = [judge.flip(x, (x + eta / 255 * sign).clamp(0, 1)).item() for eta in (4, 8, 16)]
    assert np.allclose(errors, [0.045, 0.076, 0.129], rtol=0.15)
    assert judge.flip(x, x).item() == 0


def test_the_weights_tool_refuses_a_pickle_that_calls_functions():
    hostile = pickle.dumps(print)
    with pytest.raises(pickle.UnpicklingError, match="print"):
        get_lpips._ArraysOnly(io.BytesIO(hostile)).load()
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3)}
    text = pickle.dumps(arrays, protocol=3).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert np.array_equal(get_lpips._ArraysOnly(io.BytesIO(text)).load()["a"], arrays["a"])
