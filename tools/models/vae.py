"""Train the nano autoencoder (AutoencoderKL, 128 px → 8×16×16) on the rendered faces, in three stages.

    python -m tools.models.vae runs/faces runs/vae_soft --crop 64 --steps 6000
    python -m tools.models.get_lpips --vgg runs/vgg16.safetensors
    python -m tools.models.vae runs/faces runs/vae_2 --start runs/vae_soft --vgg runs/vgg16.safetensors \
        --steps 1500 --lr 6e-4
    python -m tools.models.vae runs/faces runs/vae --start runs/vae_2 --vgg runs/vgg16.safetensors \
        --steps 6000 --lr 6e-4 --decoder-only

Resumable: run a command again and it goes on. The first stage sees crops of 64 px, which cost a quarter of a
photo; the network has no attention, so whole photos follow. The loss is L1 plus L1 of the image gradient.
Alone it blurs a face until dlib no longer knows the person, so the second stage adds a distance in VGG16's
features over the face. The third leaves the encoder alone, and with it every latent. So diffusion models that
were trained on latents stay as they are, while pictures become sharper. VGG16 judges nothing in this project.
"""

import copy
from argparse import Namespace
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from safetensors.torch import load_file

from antipure_lib.runtime.devices import pick_device
from antipure_lib.runtime.noise import randn
from tools.models.loop import fit, load_faces, starting_weights, training_parser

SIZE, CHANNELS = 128, 8  # of the photos, in pixels; of the latents
FACE = (..., slice(24, 104), slice(24, 104))  # pixels in which VGG16 compares


def make_vae() -> AutoencoderKL:
    """The nano autoencoder: f=8, 8 latent channels, no attention."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32, 64, 128, 128),
        layers_per_block=1,
        latent_channels=CHANNELS,
        norm_num_groups=16,
        sample_size=SIZE,
        mid_block_add_attention=False,
    )


def gradients(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Differences of neighbouring pixels, down and across."""
    return x[..., 1:, :] - x[..., :-1, :], x[..., :, 1:] - x[..., :, :-1]


class Features:
    """Distance of two pictures in VGG16's relu1_2, relu2_2 and relu3_3, each pixel's scaled to length 1."""

    def __init__(self, path: Path, device: torch.device):
        self.weights = load_file(path, device=str(device))

    def __call__(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """x, y: N×3×H×W in [−1, 1]. Returns a scalar."""
        shift = x.new_tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
        scale = x.new_tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
        with torch.no_grad():
            theirs = self._layers((x / 2 + 0.5 - shift) / scale)
        ours = self._layers((y / 2 + 0.5 - shift) / scale)
        return sum((a - b).square().sum(1).mean() for a, b in zip(ours, theirs, strict=True))

    def _layers(self, h: torch.Tensor) -> list[torch.Tensor]:
        found = []
        for layer in range(7):
            if layer in (2, 4):
                h = F.max_pool2d(h, 2)
            h = F.relu(F.conv2d(h, self.weights[f"{layer}.weight"], self.weights[f"{layer}.bias"], padding=1))
            if layer in (1, 3, 6):
                found.append(F.normalize(h.float(), dim=1, eps=1e-4))
        return found


def main(given: Namespace) -> None:
    batch, crop = given.batch, given.crop
    torch.manual_seed(given.seed)
    device = pick_device()
    features = Features(given.vgg, device) if given.vgg else None
    images, _, _ = load_faces(given.faces)
    vae = make_vae().train().to(device)
    if given.start:
        vae.load_state_dict(starting_weights(given.start, "vae"))
    if given.decoder_only:
        vae.encoder.requires_grad_(False)
        vae.quant_conv.requires_grad_(False)
    averaged = copy.deepcopy(vae).eval()

    def loss(step: int, generator: torch.Generator) -> torch.Tensor:
        index = torch.randint(len(images), (batch,), generator=generator)
        x = images[index].to(device).float() / 127.5 - 1
        if torch.rand((), generator=generator) < 0.5:
            x = x.flip(-1)
        if crop < SIZE:  # on the grid of the latents
            top, left = (8 * torch.randint((SIZE - crop) // 8 + 1, (2,), generator=generator)).tolist()
            x = x[..., top : top + crop, left : left + crop]
        posterior = vae.encode(x).latent_dist
        z = posterior.mean + posterior.std * randn(posterior.mean.shape, generator, device)
        y = vae.decode(z).sample.float()
        edges = sum((a - b).abs().mean() for a, b in zip(gradients(y), gradients(x), strict=True))
        value = (y - x).abs().mean() + edges + 1e-6 * posterior.kl().float().mean()
        if features:
            value = value + features(x[FACE], y[FACE])
        return value

    options = dict(steps=given.steps, lr=given.lr, seed=given.seed)
    fit(given.run, {"vae": vae}, {"vae": averaged}, loss, **options)


if __name__ == "__main__":
    parser = training_parser(__doc__, ("faces", "run"), steps=2800, batch=16, lr=1e-3, seed=0, crop=SIZE)
    parser.add_argument("--vgg", type=Path, help="VGG16's convolutions from tools.models.get_lpips")
    parser.add_argument("--decoder-only", action="store_true", help="the encoder stays as it is")
    given = parser.parse_args()
    if given.vgg and given.crop != SIZE:
        parser.error("--crop: VGG16 compares whole faces; leave --vgg or --crop out")
    main(given)
