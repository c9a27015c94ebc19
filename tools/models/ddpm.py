"""Train the nano purifier: an unconditional DDPM (UNet2DModel, 32 px) on crops of faces and of real photos.

    python -m tools.models.ddpm runs/faces data/photos runs/ddpm [--steps 2000] [--start data/models/ddpm]

Resumable. Purification works at t ≤ 100, so most training happens there. The astronaut is left out of
training: it is the photo that the notebooks protect.
"""

import argparse
import copy
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DModel
from PIL import Image

from antipure_lib.devices import pick_device
from antipure_lib.noise import randn
from tools.models.loop import fit, load_faces, starting_weights

SIDE = 32
SMALL_T = 100


def make_unet() -> UNet2DModel:
    """The nano purifier: three levels, attention at 8×8 only."""
    return UNet2DModel(
        sample_size=SIDE,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=(48, 96, 128),
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
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
        for shrink in (1, 1.6, 2.5, 4):
            small = photo.resize((int(photo.width / shrink), int(photo.height / shrink)), Image.LANCZOS)
            if min(small.size) >= SIDE:
                pyramid.append(torch.from_numpy(np.asarray(small).copy()).permute(2, 0, 1))
    return pyramid


def crops(source: list[torch.Tensor] | torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """Random `SIDE`×`SIDE` crops, half of them mirrored."""
    pieces = []
    for k in torch.randint(len(source), (count,), generator=generator).tolist():
        image = source[k]
        top = int(torch.randint(image.shape[-2] - SIDE + 1, (), generator=generator))
        left = int(torch.randint(image.shape[-1] - SIDE + 1, (), generator=generator))
        piece = image[:, top : top + SIDE, left : left + SIDE]
        pieces.append(piece.flip(-1) if torch.rand((), generator=generator) < 0.5 else piece)
    return torch.stack(pieces)


def main(
    faces: Path, photos: Path, run: Path, start: Path | None, steps: int, batch: int, lr: float, seed: int
) -> None:
    torch.manual_seed(seed)
    device = pick_device()
    images, _, _ = load_faces(faces)
    pyramid = photo_pyramid(photos)
    unet = make_unet().train().to(device)
    if start:
        unet.load_state_dict(starting_weights(start, "unet"))
    averaged = copy.deepcopy(unet).eval()
    alpha_bar = make_scheduler().alphas_cumprod.to(device)
    real, large = batch // 5, batch // 8

    def loss(step: int, generator: torch.Generator) -> torch.Tensor:
        zoom = images[torch.randint(len(images), (large,), generator=generator)].float()
        zoomed = F.interpolate(zoom, size=112, mode="bicubic", antialias=True).clamp(0, 255)
        x0 = torch.cat(
            [
                crops(images, batch - real - large, generator).float(),
                crops(zoomed, large, generator),
                crops(pyramid, real, generator).float(),
            ]
        )
        x0 = x0.to(device) / 127.5 - 1
        t = torch.randint(1000, (batch,), generator=generator)
        near = torch.rand(batch, generator=generator) < 0.7
        t = torch.where(near, t % SMALL_T, t).to(device)
        eps = randn(x0.shape, generator, device)
        a = alpha_bar[t].view(-1, 1, 1, 1)
        x_t = a.sqrt() * x0 + (1 - a).sqrt() * eps
        return F.mse_loss(unet(x_t, t).sample.float(), eps)

    fit(run, {"unet": unet}, {"unet": averaged}, loss, steps=steps, lr=lr, seed=seed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("faces", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--start", type=Path, help="run, or pipeline such as data/models/ddpm, to start from")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    main(given.faces, given.photos, given.run, given.start, given.steps, given.batch, given.lr, given.seed)
