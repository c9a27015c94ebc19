"""The spectrum against closed forms and NumPy, the report's figures against the judges'."""

import numpy as np
import pytest
import torch
from PIL import Image

from antipure_lib.__main__ import main
from antipure_lib.core.images import quantise
from antipure_lib.judges.faces import Judge
from antipure_lib.judges.perturbation import radial_spectrum, survival
from antipure_lib.photos.pictures import save_image
from antipure_lib.runtime.noise import image_generators, randn


def wave(vertical, horizontal, height=48, width=64):
    """A cosine of these numbers of periods over the picture, amplitude 1, in all three channels."""
    rows, columns = np.mgrid[:height, :width]
    phase = 2 * np.pi * (vertical * rows / height + horizontal * columns / width)
    return torch.from_numpy(np.cos(phase)).float().expand(3, -1, -1)


@pytest.mark.parametrize(("vertical", "horizontal"), [(0, 4), (6, 0), (12, 16), (-9, 12), (24, 32)])
def test_a_wave_lies_in_the_ring_of_its_frequency(vertical, horizontal):
    frequencies, amplitudes = radial_spectrum(wave(vertical, horizontal))
    top = int(amplitudes.nan_to_num().argmax())
    frequency = np.hypot(vertical / 48, horizontal / 64)
    assert abs(frequencies[top] - frequency) <= (frequencies[1] - frequencies[0]) / 2 + 1e-6
    others = torch.cat([amplitudes[:top], amplitudes[top + 1 :]]).nan_to_num()
    assert others.max() < 1e-4 * amplitudes[top]


@pytest.mark.parametrize("size", [(3, 1, 1), (3, 3, 50), (3, 31, 17), (3, 64, 64)])
def test_rings_hold_the_whole_energy(size):
    """Parseval: counted by NumPy, the rings' energies add up to the perturbation's."""
    delta = torch.randn(size, generator=torch.Generator().manual_seed(1))
    frequencies, amplitudes = radial_spectrum(delta)
    f = np.hypot(np.fft.fftfreq(size[1])[:, None], np.fft.fftfreq(size[2])[None])
    half = float(frequencies[0])
    edges = np.append(frequencies.numpy() - half, np.inf)
    counts, _ = np.histogram(f, np.append(edges[:-1] - 1e-7, 1))
    energy = (amplitudes.nan_to_num().numpy() ** 2 * counts).sum() * 3
    assert energy == pytest.approx(delta.square().sum().item(), rel=1e-4)
    assert (amplitudes.isnan().numpy() == (counts == 0)).all()


def test_survival_is_the_ratio_of_norms_under_common_noise():
    x = torch.full((3, 3, 8, 8), 0.5)
    delta = 0.1 * torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    keep = torch.tensor([0.0, 0.25, 1.0])

    def purify(images, seed):
        noise = randn(images.shape, image_generators(seed, len(images)))
        return 0.5 + keep.view(3, 1, 1, 1) * (images - 0.5) + noise

    torch.testing.assert_close(survival(purify, x, x + delta, seed=4), keep, atol=1e-5, rtol=1e-4)
    assert survival(lambda images, seed: images, x[0], (x + delta)[0]).shape == (1,)
    with pytest.raises(ValueError, match="nothing that could survive"):
        survival(purify, x, x)
    with pytest.raises(ValueError, match="one shape"):
        survival(purify, x, x[:2])


@pytest.fixture
def pair(tmp_path, pictures):
    """A photo and its change by up to 4/255, as files."""
    x = pictures(1, 40, 64)[0] * 0.9
    change = 4 / 255 * torch.rand(x.shape, generator=torch.Generator().manual_seed(2))
    x_adv = quantise((x + change).clamp(0, 1))
    return [save_image(image, tmp_path / name) for image, name in ((x, "x.png"), (x_adv, "y.png"))]


def test_the_report_says_what_the_judges_say(pair, tmp_path, capsys):
    assert main(["inspect", *map(str, pair), "--out", str(tmp_path / "report.png")]) == 0
    printed = capsys.readouterr().out.replace("largest change", "largest")
    lines = dict(line.split(maxsplit=1) for line in printed.splitlines())
    x, y = (torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)[None] / 255 for path in pair)
    judge = Judge()
    assert lines["largest"] == "4/255"
    assert lines["PSNR"] == f"{judge.psnr(x, y).item():.3g} dB"
    assert lines["LPIPS"] == f"{judge.lpips(x, y).item():.3g}"
    assert lines["FLIP"] == f"{judge.flip(x, y).item():.3g}"
    report = Image.open(tmp_path / "report.png")
    assert report.format == "PNG" and min(report.size) > 500
    assert np.asarray(report.convert("RGB")).std() > 20


@pytest.mark.parametrize(
    ("second", "out", "message"),
    [
        ("x.png", "r.png", "equal"),
        ("small.png", "r.png", "64×40 and 8×9 pixels"),
        ("gone.png", "r.png", "no such file"),
        ("y.png", "r.jpg", ".png"),
        ("y.png", "y.png", "overwrite"),
    ],
)
def test_what_cannot_be_inspected_is_told_in_one_line(pair, tmp_path, capsys, second, out, message):
    save_image(torch.rand(3, 9, 8), tmp_path / "small.png")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert main(["inspect", str(pair[0]), str(tmp_path / second), "--out", str(tmp_path / out)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
