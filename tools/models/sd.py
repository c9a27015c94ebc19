"""Train the nano Stable Diffusion: text encoder and latent UNet, on the captioned faces.

    python -m tools.models.sd runs/faces runs/vae runs/sd [--steps 2000]

The autoencoder comes first (`tools.models.vae`). Resumable. Captions are dropped one time in ten
(classifier-free guidance) and shortened at random, so that "a photo of a person" works too. Losses are
weighted by min(SNR, 5)/SNR (Hang et al. 2023).
"""

import copy
import json
from argparse import Namespace
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from antipure_lib.photos.pictures import atomic
from antipure_lib.runtime.devices import pick_device
from antipure_lib.runtime.digests import digest
from antipure_lib.runtime.noise import randint, randn
from tools.faces.people import BACKGROUNDS, HAIR_COLOURS, LENGTH, LIGHTS
from tools.models.loop import fit, load_faces, starting_weights, training_parser
from tools.models.vae import CHANNELS, make_vae

MAX_TOKENS = 32
COMMON = """a photo of person with hair beard glasses smiling background sks dslr portrait man woman face
picture close up the and , .""".split()
NAMES = (*HAIR_COLOURS, *LENGTH.values(), *BACKGROUNDS, *LIGHTS)
WORDS = COMMON + [word for text in NAMES for word in text.split()]


def split_word(word: str, merges: list[tuple[str, str]]) -> list[str]:
    """Byte-pair encoding of one word: merge the earliest-listed neighbouring pair until none is left."""
    pieces = [*word[:-1], word[-1] + "</w>"]
    while True:
        found = [
            (merges.index(pair), k)
            for k, pair in enumerate(zip(pieces, pieces[1:], strict=False))
            if pair in merges
        ]
        if not found:
            return pieces
        k = min(found)[1]
        pieces[k : k + 2] = [pieces[k] + pieces[k + 1]]


def make_tokenizer(folder: Path) -> CLIPTokenizer:
    """A CLIP byte-pair tokenizer in which every word of the captions, and `sks`, is one token.

    Other words fall apart into letters, as rare words do in CLIP's own vocabulary. A merge appended to the
    list comes after all earlier ones, so that it can't break a word that is whole already.
    """
    letters = "abcdefghijklmnopqrstuvwxyz0123456789,.-'!?"
    vocabulary = [*letters, *(letter + "</w>" for letter in letters)]
    merges = []
    for word in sorted(set(WORDS)):
        while len(pieces := split_word(word, merges)) > 1:
            merges.append((pieces[0], pieces[1]))
            vocabulary.append(pieces[0] + pieces[1])
    vocabulary = list(dict.fromkeys([*vocabulary, "<|startoftext|>", "<|endoftext|>"]))
    folder.mkdir(parents=True, exist_ok=True)
    table = {token: number for number, token in enumerate(vocabulary)}
    (folder / "vocab.json").write_text(json.dumps(table, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    return CLIPTokenizer(
        vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"), model_max_length=MAX_TOKENS
    )


def make_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """A two-layer CLIP text encoder."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.eos_token_id,
        )
    )


def make_unet() -> UNet2DConditionModel:
    """The latent UNet: 16×16 without attention, 8×8 with cross-attention (where it is cheap on a CPU)."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        layers_per_block=1,
        block_out_channels=(96, 192),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=128,
        attention_head_dim=6,
        norm_num_groups=16,
    )


def make_scheduler() -> DDIMScheduler:
    """Stable Diffusion's own schedule."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def trained_vae(run: Path) -> AutoencoderKL:
    """The averaged autoencoder of a finished `tools.models.vae` run."""
    vae = make_vae()
    vae.load_state_dict(starting_weights(run, "vae"))
    return vae.eval()


@torch.no_grad()
def encode(vae: AutoencoderKL, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of every image's latent."""
    means, stds = [], []
    for chunk in images.split(64):
        posterior = vae.encode(chunk.to(vae.device).float() / 127.5 - 1).latent_dist
        means.append(posterior.mean.cpu())
        stds.append(posterior.std.cpu())
    return torch.cat(means), torch.cat(stds)


def shorten(text: str, generator: torch.Generator) -> str:
    """Drop a caption (1 in 10), or keep its subject and each further part with probability 0.8."""
    draw = torch.rand(8, generator=generator).tolist()
    if draw[0] < 0.1:
        return ""
    subject, *parts = text.split(", ")
    if draw[1] < 0.2:
        subject = subject.split(" with ")[0]
    return ", ".join([subject, *(p for p, keep in zip(parts, draw[2:], strict=False) if keep < 0.8)])


def main(given: Namespace) -> None:
    run, batch = given.run, given.batch
    torch.manual_seed(given.seed)
    device = pick_device()
    images, captions, _ = load_faces(given.faces)
    vae = trained_vae(given.vae).to(device)
    latent_file = run / f"latents-{digest(vae.state_dict())[:16]}.pt"  # another autoencoder has others
    if not latent_file.exists():
        run.mkdir(parents=True, exist_ok=True)
        with atomic(latent_file) as part:
            torch.save(encode(vae, images), part)
    mean, std = torch.load(latent_file, weights_only=True)
    scaling = 1 / mean.flatten().std().item()
    (run / "scaling.json").write_text(json.dumps({"scaling_factor": scaling}))
    tokenizer = make_tokenizer(run / "tokenizer")
    text_encoder = make_text_encoder(tokenizer).train().to(device)
    unet = make_unet().train().to(device)
    models = {"unet": unet, "text_encoder": text_encoder}
    if given.start:
        for name, model in models.items():
            model.load_state_dict(starting_weights(given.start, name))
    averaged = {name: copy.deepcopy(model).eval() for name, model in models.items()}
    alpha_bar = make_scheduler().alphas_cumprod.to(device)
    millions = sum(p.numel() for p in unet.parameters()) / 1e6
    print(f"scaling {scaling:.4f}, UNet {millions:.2f} M parameters", flush=True)

    def loss(step: int, generator: torch.Generator) -> torch.Tensor:
        index = torch.randint(len(mean), (batch,), generator=generator)
        noise = randn(mean[index].shape, generator, device)
        z0 = scaling * (mean[index].to(device) + std[index].to(device) * noise)
        texts = [shorten(captions[k], generator) for k in index.tolist()]
        tokens = tokenizer(
            texts, padding="max_length", truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        )
        condition = text_encoder(tokens.input_ids.to(device)).last_hidden_state
        t = randint(0, 1000, (batch,), generator, device)
        eps = randn(z0.shape, generator, device)
        a = alpha_bar[t].view(-1, 1, 1, 1)
        z_t = a.sqrt() * z0 + (1 - a).sqrt() * eps
        error = (unet(z_t, t, condition).sample.float() - eps).square().mean((1, 2, 3))
        snr = alpha_bar[t] / (1 - alpha_bar[t])
        return (error * snr.clamp(max=5) / snr).mean()

    fit(run, models, averaged, loss, steps=given.steps, lr=given.lr, seed=given.seed, decay=0.9995)


if __name__ == "__main__":
    numbers = dict(steps=2000, batch=32, lr=6e-4, seed=0)
    main(training_parser(__doc__, ("faces", "vae", "run"), **numbers).parse_args())
