"""Judges that share no weights with any model here: dlib for identity; visible change (see `visible`)."""

import importlib.util
import json
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from ..core.images import check_image
from ..models.embedded import data_path
from ..runtime.checks import optional_package
from .visible import flip, lpips, psnr, ssim

DETECT_SIDE = 256  # the HOG detector knows faces from about 80 px up; a 64 px portrait's face has about 40
MAX_SIDE = 2048  # keeps a 20,000 x 3 strip from being enlarged beyond memory


class Judge:
    """Identity and perceptual judges; each network is loaded when it is first needed. Nothing is random.

    Images are 3×H×W or N×3×H×W float32 in [0, 1]. Where faces are compared, their embeddings (N×128, from
    `embed`) may be given as well. Raises ValueError for other images.
    """

    def detect(self, images: torch.Tensor) -> list[tuple[float, float, float, float] | None]:
        """Find the largest face of every image: dlib's HOG detector (Dalal and Triggs 2005).

        The shorter side is enlarged to DETECT_SIDE, a longer side over MAX_SIDE reduced to that (bicubic).
        Returns N boxes (left, top, right, bottom) in pixels of the input, or None where there is no face.
        A box may reach past the border. Raises ModuleNotFoundError without dlib.
        """
        boxes = []
        for image in check_image(images, "images"):
            pixels, scale = _enlarge(image)
            face = self._largest_face(pixels)
            corners = None if face is None else (face.left(), face.top(), face.right() + 1, face.bottom() + 1)
            boxes.append(corners and tuple(corner / scale for corner in corners))
        return boxes

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """Describe the largest face of every image by the 128 numbers of dlib's ResNet (5 points, no jitter).

        Returns N×128 float32 on the CPU, NaN in rows without a face. Raises ModuleNotFoundError without dlib
        or face_recognition_models.
        """
        dlib = _dlib()
        images = check_image(images, "images")
        embeddings = torch.full((len(images), 128), torch.nan, dtype=torch.float32)
        chips = {}
        for index, image in enumerate(images):
            pixels, _ = _enlarge(image)
            face = self._largest_face(pixels)
            if face is not None:
                chips[index] = dlib.get_face_chip(pixels, self._landmarks(pixels, face), size=150)
        if chips:
            found = self._recogniser.compute_face_descriptor(list(chips.values()))
            embeddings[list(chips)] = torch.from_numpy(np.array(found, dtype=np.float32))
        return embeddings

    def ism(self, generated: torch.Tensor, reference: torch.Tensor) -> float:
        """Identity score matching: mean cosine to the mean clean embedding.  (Anti-DreamBooth, 2303.15433)

        In [−1, 1], over the generated images with a face; nan where none has one. Even strangers score about
        0.9, because dlib's embeddings aren't centred. Compare with pairs of photos of one person and of two.
        """
        clean = self._faces(reference).nanmean(dim=0)
        return float(F.cosine_similarity(self._faces(generated), clean, dim=-1).nanmean())

    def distance(self, generated: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        """Euclidean distance of faces, dlib's own metric: the mean over the reference photos.

        Returns (N,) float32, NaN where a generated image, or every reference, has no face.
        `threshold` is calibrated on pairs of photos: the distance to a mean embedding is smaller.
        """
        faces, clean = self._faces(generated), self._faces(reference)
        return torch.linalg.vector_norm(faces[:, None] - clean[None], dim=-1).nanmean(dim=1)

    def same_person(self, generated: torch.Tensor, reference: torch.Tensor) -> float:
        """Share, in [0, 1], of the generated images that show the reference person: distance ≤ `threshold`.

        An image without a face does not show the person; nan where no reference has a face.
        """
        clean = self._faces(reference)
        shown = self.distance(generated, clean) <= self.threshold
        return float(shown.float().mean()) if clean.isfinite().any() else torch.nan

    def fdfr(self, generated: torch.Tensor) -> float:
        """Face detection failure rate: share, in [0, 1], of the images in which `detect` finds no face."""
        if generated.ndim == 2:
            return float(self._faces(generated).isnan().any(dim=1).float().mean())
        boxes = self.detect(generated)
        return sum(box is None for box in boxes) / len(boxes)

    @cached_property
    def calibration(self) -> dict:
        """data/faces/calibration.json: dlib on held-out rendered faces (threshold, fpr, auc, ...)."""
        return json.loads(data_path("faces", "calibration.json").read_text(encoding="utf-8"))

    @property
    def threshold(self) -> float:
        """Distance up to which two rendered faces count as one person; for real photos dlib says 0.6."""
        return float(self.calibration["threshold"])

    lpips, flip, ssim, psnr = (staticmethod(measure) for measure in (lpips, flip, ssim, psnr))

    def _faces(self, faces: torch.Tensor) -> torch.Tensor:
        if faces.ndim == 2 and faces.shape[1] != 128:
            shape = tuple(faces.shape)
            raise ValueError(f"faces: expected images or N×128 embeddings, not {shape}; use Judge.embed")
        return faces if faces.ndim == 2 else self.embed(faces)

    def _largest_face(self, pixels: np.ndarray):
        return max(self._detector(pixels, 0), key=lambda face: face.area(), default=None)

    @cached_property
    def _detector(self):
        return _dlib().get_frontal_face_detector()

    @cached_property
    def _landmarks(self):
        return _dlib().shape_predictor(_model_path("shape_predictor_5_face_landmarks.dat"))

    @cached_property
    def _recogniser(self):
        return _dlib().face_recognition_model_v1(_model_path("dlib_face_recognition_resnet_model_v1.dat"))


def _dlib():
    return optional_package("dlib", "pip install dlib-bin")


def _model_path(name: str) -> str:
    # Found, not imported: its __init__ imports pkg_resources, which current setuptools no longer has.
    spec = importlib.util.find_spec("face_recognition_models")
    path = spec and Path(spec.origin).parent / "models" / name
    if not path or not path.is_file():
        command = "pip install --no-deps face-recognition-models"
        raise ModuleNotFoundError(f"face_recognition_models: its {name} is missing; run: {command}")
    return str(path)


def _enlarge(image: torch.Tensor) -> tuple[np.ndarray, float]:
    """One 3HW image as H×W×3 8-bit pixels at the detector's size, and how many times larger they are."""
    short, long = sorted(image.shape[-2:])
    scale = min(max(1.0, DETECT_SIDE / short), MAX_SIDE / long)
    if scale != 1:
        size = [max(1, round(side * scale)) for side in image.shape[-2:]]
        image = F.interpolate(image[None].float(), size=size, mode="bicubic", antialias=scale < 1)[0]
    pixels = (image.detach().clamp(0, 1) * 255).round().byte()
    return np.ascontiguousarray(pixels.permute(1, 2, 0).cpu().numpy()), scale
