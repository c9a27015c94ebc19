"""Give the rare word `sks` an embedding of the size that trained words have; `tools.models.export` does it.

No caption holds `sks`, so training leaves its embedding at its small random start. To the UNet "a photo of
sks person" is then nearly the same as "a photo of a person". DreamBooth mixes the subject with the people of
its prior images. In Stable Diffusion a rare word is a trained word like any other. Here it becomes a random
combination of the trained words' embeddings, of a size that was tried on tuning people
(`python -m tools.study.nano rare_word`).
"""

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
