"""tools/models/sd.py: captions; tools/models/rare_word.py."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from tools.models.rare_word import SIZE, make_heard, rare_embedding
from tools.models.sd import make_text_encoder, make_tokenizer, shorten

ANYBODY = "a photo of a person"
CAPTION = ANYBODY + " with short brown hair, smiling, blue background"


@given(st.integers(0, 2**31 - 1))
def test_a_shortened_caption_says_nothing_new(seed):
    short = shorten(CAPTION, torch.Generator().manual_seed(seed))
    assert short == "" or short.startswith(ANYBODY)
    assert set(short.replace(",", "").split()) <= set(CAPTION.replace(",", "").split())


def test_the_rare_word_is_a_combination_of_the_others():
    words = torch.randn((5, 128), generator=torch.Generator().manual_seed(1))
    found = rare_embedding(words)
    torch.testing.assert_close(found.norm(), SIZE * words.norm(dim=1).mean())
    centred = words - words.mean(0)
    weights = torch.linalg.lstsq(centred.T, found[:, None]).solution
    torch.testing.assert_close((centred.T @ weights)[:, 0], found)
    assert torch.equal(found, rare_embedding(words))


def test_the_rare_word_alone_is_changed_and_heard(tmp_path):
    tokenizer = make_tokenizer(tmp_path)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = make_text_encoder(tokenizer).eval()
    words = encoder.get_input_embeddings().weight
    before = words.detach().clone()
    options = {"padding": "max_length", "return_tensors": "pt"}
    prompts = tokenizer(["a photo of sks person", ANYBODY], **options).input_ids
    with torch.no_grad():
        apart = [(a - b).norm() for a, b in [encoder(prompts)[0]]]
        make_heard(encoder, tokenizer)
        apart += [(a - b).norm() for a, b in [encoder(prompts)[0]]]
    changed = (words != before).any(dim=1).nonzero().flatten().tolist()
    assert changed == tokenizer("sks", add_special_tokens=False).input_ids
    assert apart[1] > apart[0]
