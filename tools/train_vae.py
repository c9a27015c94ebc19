"""Train the nano autoencoder (AutoencoderKL, 64 px → 4×16×16) on the rendered faces.

    python tools/train_vae.py runs/faces runs/vae [--steps 2800]

Resumable: run it again and it goes on. L1 plus L1 of the image gradient keeps edges that a mean square would blur.
"""

import argparse
import copy
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from training import fit, load_faces


def make_vae() -> AutoencoderKL:
    """The nano autoencoder: f=4, 4 latent channels, no attention."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(32, 64, 96),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=16,
        sample_size=64,
        mid_block_add_attention=False,
    )


def gradients(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Differences of neighbouring pixels, down and across."""
    return x[..., 1:, :] - x[..., :-1, :], x[..., :, 1:] - x[..., :, :-1]


def main(faces: Path, run: Path, steps: int, batch: int, lr: float, seed: int) -> None:
    torch.manual_seed(seed)
    images, _, _ = load_faces(faces)
    vae = make_vae().train()
    averaged = copy.deepcopy(vae).eval()

    def loss(step: int, generator: torch.Generator) -> torch.Tensor:
        index = torch.randint(len(images), (batch,), generator=generator)
        x = images[index].float() / 127.5 - 1
        if torch.rand((), generator=generator) < 0.5:
            x = x.flip(-1)
        posterior = vae.encode(x).latent_dist
        z = posterior.mean + posterior.std * torch.randn(posterior.mean.shape, generator=generator)
        y = vae.decode(z).sample.float()
        edges = sum((a - b).abs().mean() for a, b in zip(gradients(y), gradients(x), strict=True))
        return (y - x).abs().mean() + edges + 1e-6 * posterior.kl().float().mean()

    fit(run, {"vae": vae}, {"vae": averaged}, loss, steps=steps, lr=lr, seed=seed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("faces", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int, default=2800)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    main(given.faces, given.run, given.steps, given.batch, given.lr, given.seed)
