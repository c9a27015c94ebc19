"""Train the nano purifier: an unconditional DDPM (UNet2DModel, 64 px) that denoises whatever it is shown.

    python -m tools.models.ddpm runs/faces data/photos runs/ddpm [--steps 12000 --decay-last 2000]

Resumable. The first `--alone` steps see photos and drawn pictures alone and need no rendered faces. After
them, crops of renders, crops of photos and pictures are a third of each batch. In the last `--decay-last`
steps the learning rate falls. Purification works at t < 10
(GrIDPure) and t < 100 (DiffPure), so most training happens there. The astronaut is left out: the notebooks
protect it.

How the shape was chosen. Cost: one UNet call on ten tiles, as a multiple of the first edition's (32 px tiles,
channels 48, 96, 128). Medians of paired turns, one thread, float32, no AMX. Loss: of ε on unseen pictures
after 300 steps of 16 (rate 1e-3, falling in the last 40 %). Half of each batch was the same pictures for all.
The other half was crops of ten photos for the first two shapes and of three photos for the next two.

    channels               parameters  cost  loss at t = 3    9      30     99
    16, 32, 96, 192             5.8 M  1.48           .594   .447   .278   .156
    16, 32, 64, 128, 256       10.6 M  1.26           .586   .440   .274   .154
    16, 48, 64, 128, 256       10.7 M  1.47           .600   .451   .284   .154
    32, 32, 48, 96, 192         6.3 M  1.45           .543   .405   .246   .122
    32, 32, 64, 128, 192        7.2 M  1.56           not trained
    32, 32, 64, 128, 256       10.8 M  1.71           not trained
    32, 64, 128, 192            7.1 M  3.18           not trained

Width at full resolution counts most. In GrIDPure's whole loop the fourth shape, chosen here,
costs 1.40 times the first edition's.
"""

import copy
import functools
from argparse import Namespace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DModel
from PIL import Image

from antipure_lib.runtime.devices import pick_device
from antipure_lib.runtime.noise import randn
from tools.models import pictures
from tools.models.loop import fit, load_faces, starting_weights, training_parser

SIDE = 64
NEAR = {10: 0.4, 100: 0.45}  # t below this: share of a batch; the rest is drawn from all 1000


def make_unet() -> UNet2DModel:
    """The nano purifier: five levels, attention at 4×4 only."""
    return UNet2DModel(
        sample_size=SIDE,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=(32, 32, 48, 96, 192),
        down_block_types=("DownBlock2D",) * 4 + ("AttnDownBlock2D",),
        up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * 4,
        norm_num_groups=16,
        attention_head_dim=32,
    )


def make_scheduler() -> DDPMScheduler:
    """1000 linear steps, as DDPM and guided-diffusion have."""
    return DDPMScheduler(
        num_train_timesteps=1000, beta_start=1e-4, beta_end=0.02, beta_schedule="linear", clip_sample=True
    )


def photo_pyramid(folder: Path) -> list[torch.Tensor]:
    """Real photos at several sizes (3×H×W uint8), the astronaut left out."""
    pyramid = []
    for path in sorted(folder.glob("*.png")):
        if path.stem == "astronaut":
            continue
        photo = Image.open(path).convert("RGB")
        for shrink in (1, 1.3, 1.7, 2.2, 3, 4):
            small = photo.resize((int(photo.width / shrink), int(photo.height / shrink)), Image.LANCZOS)
            if min(small.size) >= SIDE:
                pyramid.append(torch.from_numpy(np.asarray(small).copy()).permute(2, 0, 1))
    if not pyramid:
        raise FileNotFoundError(f"{folder}: no PNG photos of at least {SIDE} px; give the folder data/photos")
    return pyramid


def crop(image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A random `SIDE`×`SIDE` crop of 3×H×W, half of the time mirrored."""
    top, left = (int(torch.randint(n - SIDE + 1, (), generator=generator)) for n in image.shape[-2:])
    piece = image[:, top : top + SIDE, left : left + SIDE]
    return piece.flip(-1) if torch.rand((), generator=generator) < 0.5 else piece


def face_crop(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A crop, 3×`SIDE`×`SIDE` in [0, 1], of a render (N×3×128×128 uint8) at one of three zooms."""
    image = images[int(torch.randint(len(images), (), generator=generator))].float() / 255
    size = (80, 128, 128, 208)[int(torch.randint(4, (), generator=generator))]
    zoomed = F.interpolate(image[None], size=size, mode="bicubic", antialias=True)[0].clamp(0, 1)
    return crop(zoomed, generator)


def photo_crop(pyramid: list[torch.Tensor], rng: np.random.Generator, generator: torch.Generator):
    """A crop, 3×`SIDE`×`SIDE` in [0, 1], of a photo at any size, seen by another camera."""
    piece = crop(pyramid[int(torch.randint(len(pyramid), (), generator=generator))], generator)
    return torch.from_numpy(pictures.camera(rng, piece.permute(1, 2, 0).numpy() / np.float32(255)))


def batch_of(
    count: int, faces: torch.Tensor | None, pyramid: list[torch.Tensor], generator: torch.Generator
) -> torch.Tensor:
    """count×3×`SIDE`×`SIDE` in [−1, 1]: a third each of faces (where there are any), photos and pictures."""
    rng = np.random.default_rng(int(torch.randint(2**31, (), generator=generator)))
    third = count // 3
    pieces = [photo_crop(pyramid, rng, generator).permute(2, 0, 1) for _ in range(third)]
    if faces is not None:
        pieces += [face_crop(faces, generator) for _ in range(third)]
    while len(pieces) < count:
        picture = torch.from_numpy(pictures.draw(rng, 96)).permute(2, 0, 1)
        pieces.append(crop(picture, generator))
    return torch.stack(pieces) * 2 - 1


def timesteps(count: int, generator: torch.Generator) -> torch.Tensor:
    """`count` timesteps, most of them small (`NEAR`)."""
    t = torch.randint(1000, (count,), generator=generator)
    share = torch.rand(count, generator=generator)
    for below, part in NEAR.items():
        t = torch.where((share >= 0) & (share < part), t % below, t)
        share = share - part
    return t


def main(given: Namespace) -> None:
    torch.manual_seed(given.seed)
    device = pick_device()
    pyramid, rendered = photo_pyramid(given.photos), functools.cache(lambda: load_faces(given.faces)[0])
    unet = make_unet().train().to(device, memory_format=torch.channels_last)
    if given.start:
        unet.load_state_dict(starting_weights(given.start, "unet"))
    averaged = copy.deepcopy(unet).eval()
    alpha_bar = make_scheduler().alphas_cumprod.to(device)

    def loss(step: int, generator: torch.Generator) -> torch.Tensor:
        faces = None if step < given.alone else rendered()
        x0 = batch_of(given.batch, faces, pyramid, generator).to(device)
        t = timesteps(given.batch, generator).to(device)
        eps = randn(x0.shape, generator, device)
        a = alpha_bar[t].view(-1, 1, 1, 1)
        x_t = (a.sqrt() * x0 + (1 - a).sqrt() * eps).contiguous(memory_format=torch.channels_last)
        return F.mse_loss(unet(x_t, t).sample.float(), eps)

    options = dict(steps=given.steps, decay_last=given.decay_last, lr=given.lr, seed=given.seed, decay=0.9995)
    fit(given.run, {"unet": unet}, {"unet": averaged}, loss, **options)


if __name__ == "__main__":
    numbers = dict(alone=4000, steps=12000, decay_last=2000, batch=32, lr=6e-4, seed=0)
    main(training_parser(__doc__, ("faces", "photos", "run"), **numbers).parse_args())
