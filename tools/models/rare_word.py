"""Give the rare word `sks` an embedding of the size that trained words have.

    python -m tools.models.rare_word data/models/sd    # in place; tools.models.export does it too

No caption holds `sks`, so training leaves its embedding at its small random start. To the UNet "a photo of
sks person" is then nearly the same as "a photo of a person". DreamBooth mixes the subject with the people of
its prior images. In Stable Diffusion a rare word is a trained word like any other. Here it becomes a random
combination of the trained words' embeddings, of a size that was tried on tuning people
(`python -m tools.study.nano rare_word`).
"""

import argparse
import shutil
from pathlib import Path

import torch
from transformers import CLIPTextModel, CLIPTokenizer

from tools.models.sd import WORDS

NAME = "sks"
SIZE = 8.0  # norm of its embedding, in units of the trained words' mean norm
SEED = 7  # of the combination


def rare_embedding(words: torch.Tensor, size: float = SIZE, seed: int = SEED) -> torch.Tensor:
    """A random combination of embeddings.

    words: N×D, those of trained words. Returns D numbers: a combination of the words' deviations from their
    mean, with a norm of `size` times the words' mean norm.
    """
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(len(words), generator=generator) @ (words - words.mean(0))
    return size * words.norm(dim=1).mean() * mixed / mixed.norm()


@torch.no_grad()
def make_heard(
    text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer, size: float = SIZE, seed: int = SEED
) -> None:
    """Set the embedding of the rare word, in place."""
    table = text_encoder.get_input_embeddings().weight
    trained = sorted(set(WORDS) - {NAME})
    ids = tokenizer.convert_tokens_to_ids([f"{word}</w>" for word in trained])
    heard = rare_embedding(table[ids].float(), size, seed)
    table[tokenizer.convert_tokens_to_ids(f"{NAME}</w>")] = heard.to(table)


def main(folder: Path) -> None:
    text_encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype="auto")
    make_heard(text_encoder, CLIPTokenizer.from_pretrained(folder / "tokenizer"))
    fresh = folder / ".text_encoder.new"
    shutil.rmtree(fresh, ignore_errors=True)
    text_encoder.save_pretrained(fresh)
    shutil.rmtree(folder / "text_encoder")
    fresh.rename(folder / "text_encoder")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    main(parser.parse_args().folder)
