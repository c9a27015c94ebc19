"""The judges of sets: closed forms, scipy's matrix root, numpy's and scipy's statistics, known scores."""

import hashlib
import pickle

import numpy as np
import pytest
import scipy.linalg
import scipy.ndimage
import scipy.optimize
import scipy.special
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from antipure_lib.core.images import from_pil
from antipure_lib.judges import brisque as brisque_module
from antipure_lib.judges.brisque import brisque, brisque_features, fit_aggd
from antipure_lib.judges.frechet import alexnet_features, frechet, frechet_distance
from antipure_lib.judges.lpips import LPIPS
from antipure_lib.models.embedded import data_path
from tools.models import get_brisque


def normal(n, d, seed=0):
    return torch.randn((n, d), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def noise(n=4, size=64, seed=0):
    return torch.rand((n, 3, size, size), generator=torch.Generator().manual_seed(seed))


def white(n, d, seed=0):
    """A sample whose mean is exactly 0 and whose covariance is exactly the identity."""
    x = normal(n, d, seed)
    x = x - x.mean(0)
    return np.sqrt(n - 1) * torch.linalg.qr(x).Q


def test_gaussians_have_their_closed_form():
    """Diagonal covariances: ‖μ_a − μ_b‖² + Σ (s_a − s_b)²; one sample rotated in itself changes nothing."""
    s_a, s_b = torch.tensor([1.0, 2.0, 0.5, 0.0]).double(), torch.tensor([2.0, 2.0, 1.5, 0.3]).double()
    shift = torch.tensor([1.0, -2.0, 0.0, 0.5]).double()
    a, b = 5 + white(40, 4) * s_a, 5 + shift + white(31, 4, seed=1) * s_b
    expected = shift.square().sum() + (s_a - s_b).square().sum()
    assert frechet_distance(a, b) == pytest.approx(expected.item(), rel=1e-9)
    rotation = torch.linalg.qr(normal(4, 4, seed=2)).Q
    assert frechet_distance(a @ rotation, b @ rotation) == pytest.approx(expected.item(), rel=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 999), st.integers(1, 6), st.integers(9, 30))
def test_full_rank_is_scipys_matrix_root(seed, d, n):
    a, b = normal(n, d, seed) @ normal(d, d, seed + 1), 1 + normal(n + 3, d, seed + 2)
    cov_a, cov_b = (np.atleast_2d(np.cov(f.numpy(), rowvar=False)) for f in (a, b))
    root = scipy.linalg.sqrtm(cov_a @ cov_b).real
    expected = (a.mean(0) - b.mean(0)).square().sum().item() + np.trace(cov_a + cov_b - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6, abs=1e-7)
    assert frechet_distance(b, a) == pytest.approx(frechet_distance(a, b), rel=1e-9)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9 * cov_a.trace())


def test_features_are_spatial_means_of_alexnets_last_layer():
    x = noise(3)
    expected = [LPIPS().features(image[None])[4][0].mean((1, 2)) for image in x]
    torch.testing.assert_close(alexnet_features(x, batch=2), torch.stack(expected), rtol=1e-4, atol=1e-5)
    assert alexnet_features(x).shape == (3, 256)
    assert frechet(x, noise(4, seed=1)) == frechet_distance(*map(alexnet_features, (x, noise(4, seed=1))))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: frechet(noise(size=64), noise(size=32)), "of one size"),
        (lambda: frechet(noise(1), noise(4)), "features_a must be N×D with at least two rows"),
        (lambda: frechet(noise(), noise() * 255), "reference must lie in"),
        (lambda: frechet(noise(size=30), noise(size=30)), "31 px"),
        (lambda: frechet_distance(normal(5, 3), normal(5, 4)), "one length"),
        (lambda: frechet_distance(normal(5, 3), normal(5, 3) / 0), "features_b holds NaN"),
        (lambda: frechet_distance(noise(), noise()), "features_a must be N×D"),
        (lambda: brisque_features(noise(size=31)), "32 px"),
        (lambda: brisque_features(noise() * 2), "images must lie in"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, 4.0])
def test_a_fit_finds_what_was_drawn(alpha):
    """Halves of scipy's generalised normal with two scales: the asymmetric one's density."""
    random = np.random.default_rng(0)
    size = np.abs(scipy.stats.gennorm.rvs(alpha, size=(2, 200_000), random_state=random))
    scale_l, scale_r = 0.3, 0.5
    left = random.random(size.shape) < scale_l / (scale_l + scale_r)
    x = np.where(left, -scale_l * size, scale_r * size)
    variance = scipy.stats.gennorm.var(alpha)
    expected = alpha, x.mean(), scale_l**2 * variance, scale_r**2 * variance
    for found, value in zip(fit_aggd(torch.from_numpy(x)), expected, strict=True):
        assert found.shape == (2,)
        np.testing.assert_allclose(found, value, rtol=0.05, atol=2e-3)


def features_by_scipy(pixels):
    """The paper's formulas for one grey image in [0, 1], α by root finding."""

    def fit(y):
        l2, r2 = np.mean(y[y < 0] ** 2), np.mean(y[y > 0] ** 2)
        g = np.sqrt(l2 / r2)
        big_r = np.mean(abs(y)) ** 2 / np.mean(y**2) * (g**3 + 1) * (g + 1) / (g**2 + 1) ** 2
        gamma = scipy.special.gamma

        def excess(alpha):
            return gamma(2 / alpha) ** 2 / gamma(1 / alpha) / gamma(3 / alpha) - big_r

        alpha = scipy.optimize.brentq(excess, 0.2, 10)
        beta = np.sqrt(gamma(1 / alpha) / gamma(3 / alpha))
        return alpha, (np.sqrt(r2) - np.sqrt(l2)) * beta * gamma(2 / alpha) / gamma(1 / alpha), l2, r2

    features = []
    small = torch.from_numpy(pixels)[None, None]
    small = torch.nn.functional.interpolate(small, scale_factor=0.5, mode="bicubic")
    for image in (pixels, small[0, 0].numpy()):

        def blur(z):
            return scipy.ndimage.gaussian_filter(z, 7 / 6, mode="mirror", radius=3)

        mean = blur(image)
        y = (image - mean) / (np.sqrt(blur(image**2) - mean**2) + 1 / 255)
        alpha, _, l2, r2 = fit(y)
        features += [alpha, (l2 + r2) / 2]
        h, w = y.shape
        for i, j in [(0, 1), (1, 0), (1, 1), (-1, 1)]:
            inside = [(a, b) for a in range(h) for b in range(w) if 0 <= a + i < h and b + j < w]
            features += fit(np.array([y[a, b] * y[a + i, b + j] for a, b in inside]))
    return features


def test_features_are_the_papers():
    x = (noise(2, 40) + noise(2, 1, seed=1) * torch.linspace(0, 1, 40)) / 2
    grey = (0.299 * x[:, 0] + 0.587 * x[:, 1] + 0.114 * x[:, 2]).double().numpy()
    expected = [features_by_scipy(g) for g in grey]
    np.testing.assert_allclose(brisque_features(x), expected, rtol=2e-3, atol=2e-4)


@pytest.fixture(scope="module")
def photos():
    data = pytest.importorskip("skimage.data")
    return data.astronaut(), data.coffee()


def score(pixels):
    return brisque(from_pil(Image.fromarray(pixels))).item()


def test_scores_are_near_the_packages_own(photos):
    """What brisque 0.2.0 itself says of these pictures, with zero borders and another grey: hence ± 4."""
    astronaut, coffee = photos
    noisy = np.clip(astronaut + np.random.default_rng(0).normal(0, 20, astronaut.shape), 0, 255)
    assert score(noisy.astype(np.uint8)) == pytest.approx(46.2, abs=4)
    assert score(scipy.ndimage.gaussian_filter(astronaut, (2, 2, 0))) == pytest.approx(64.6, abs=4)
    assert score(coffee) == pytest.approx(3.0, abs=4)
    small = np.asarray(Image.fromarray(astronaut).resize((64, 64)))
    assert score(small) == pytest.approx(22.6, abs=4)


def test_scores_are_one_by_one_and_flat_images_have_none():
    x = torch.cat([noise(2), torch.full((1, 3, 64, 64), 0.3)])
    scores = brisque(x)
    assert scores.shape == (3,) and scores.dtype == torch.float32
    assert scores[:2].isfinite().all() and scores[2].isnan()
    torch.testing.assert_close(scores[1:2], brisque(x[1]))
    assert torch.equal(scores[:2], brisque(x)[:2])


SVM = (
    "svm_type epsilon_svr\nkernel_type rbf\ngamma 0.05\nnr_class 2\ntotal_sv 2\nrho -1.5\nSV\n"
    "2.5 1:0.5 36:-0.25 \n-1 2:1 \n"
)


def test_the_tool_reads_libsvms_format_and_refuses_a_pickle_that_calls_functions():
    model = get_brisque.read_svm(SVM)
    assert model["gamma"].item() == pytest.approx(0.05) and model["rho"] == -1.5
    assert model["weights"].tolist() == [2.5, -1]
    expected = torch.zeros(2, 36)
    expected[0, 0], expected[0, 35], expected[1, 1] = 0.5, -0.25, 1
    assert torch.equal(model["vectors"], expected)
    bounds = get_brisque.read_bounds(pickle.dumps({"min_": [-1.0] * 36, "max_": [3.0] * 36}))
    assert torch.equal(bounds["low"], -torch.ones(36)) and torch.equal(bounds["high"], torch.full((36,), 3.0))
    with pytest.raises(pickle.UnpicklingError, match="print"):
        get_brisque.read_bounds(pickle.dumps(print))


def test_the_tool_refuses_another_file(tmp_path):
    (tmp_path / "other.whl").write_bytes(b"other")
    with pytest.raises(ValueError, match="other.whl: sha256 .* is not brisque 0.2.0's"):
        get_brisque.read_wheel(tmp_path / "other.whl")


def test_the_regression_is_its_formula(monkeypatch, tmp_path):
    """A made-up model, as the tool writes it; the score term by term."""
    bounds = {"low": -torch.ones(36), "high": torch.full((36,), 3.0)}
    save_file(get_brisque.read_svm(SVM) | bounds, tmp_path / "brisque.safetensors")
    monkeypatch.setattr(brisque_module, "data_path", lambda *parts: tmp_path / parts[-1])
    monkeypatch.setattr(brisque_module, "_svm", brisque_module._svm.__wrapped__)  # not the shipped one, kept
    x = noise(2)
    scores = brisque(x)
    for f, found in zip(brisque_features(x).numpy(), scores, strict=True):
        scaled = (f + 1) / 2 - 1
        first, second = np.zeros(36), np.zeros(36)
        first[[0, 35]], second[1] = (0.5, -0.25), 1
        kernels = [np.exp(-0.05 * np.sum((scaled - v) ** 2)) for v in (first, second)]
        expected = 1.5 + 2.5 * kernels[0] - kernels[1]
        assert found.item() == pytest.approx(expected, rel=1e-5)


def test_the_data_card_names_the_model_that_is_there():
    found = hashlib.sha256(data_path("judges", "brisque.safetensors").read_bytes()).hexdigest()
    card = data_path("judges", "README.md").read_text(encoding="utf-8")
    assert found in card and get_brisque.WHEEL_SHA256 in card
