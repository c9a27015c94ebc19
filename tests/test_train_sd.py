"""tools/train_sd.py: names in the captions, and the tokenizer that keeps every word of them whole."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from train_sd import (
    ANYBODY,
    NAME_SCALE,
    WORDS,
    call_by_name,
    hear_names,
    make_tokenizer,
    name_vectors,
    shorten,
)

CAPTION = ANYBODY + " with short brown hair, smiling, blue background"


@given(st.integers(0, 2**31 - 1))
def test_a_name_changes_the_subject_and_nothing_else(seed):
    texts = [CAPTION, "", ANYBODY]
    named = call_by_name(texts, 0.5, torch.Generator().manual_seed(seed))
    assert named[1] == ""
    for text, other in zip(texts, named, strict=True):
        assert other in (text, text.replace("a photo of a person", "a photo of sks person"))


def test_the_share_of_named_captions_is_the_share_asked_for():
    generator = torch.Generator().manual_seed(0)
    assert call_by_name([CAPTION] * 9, 0.0, generator) == [CAPTION] * 9
    assert not any(ANYBODY in text for text in call_by_name([CAPTION] * 9, 1.0, generator))
    count = sum("sks" in text for text in call_by_name([CAPTION] * 4000, 0.5, generator))
    assert abs(count - 2000) < 4 * 4000**0.5 / 2  # four standard deviations of a binomial


def test_every_person_and_the_free_name_have_vectors_of_their_own():
    vectors = name_vectors(people=5, width=128, seed=0)
    assert vectors.shape == (6, 128)
    assert torch.equal(vectors, name_vectors(people=5, width=128, seed=0))
    assert torch.cdist(vectors, vectors)[~torch.eye(6, dtype=bool)].min() > 0.2
    norms = vectors.norm(dim=1) / (NAME_SCALE * 128**0.5)
    assert ((norms - 1).abs() < 0.3).all()


def test_the_token_takes_the_vector_of_the_person_shown():
    words, vectors = torch.nn.Embedding(7, 4), torch.arange(12.0).view(3, 4)
    ids = torch.tensor([[1, 5, 2], [5, 3, 4], [0, 1, 2]])
    plain = words(ids)
    hear_names(words, token=5, vectors=vectors)["people"] = torch.tensor([2, 0, 1])
    heard = words(ids)
    assert torch.equal(heard[0, 1], vectors[2]) and torch.equal(heard[1, 0], vectors[0])
    assert torch.equal(heard[ids != 5], plain[ids != 5])


def test_every_word_of_a_caption_is_one_token(tmp_path):
    tokenizer = make_tokenizer(tmp_path)
    for word in WORDS:
        assert len(tokenizer(word, add_special_tokens=False).input_ids) == 1, word


@given(st.integers(0, 2**31 - 1))
def test_a_shortened_caption_says_nothing_new(seed):
    short = shorten(CAPTION, torch.Generator().manual_seed(seed))
    assert short == "" or short.startswith(ANYBODY)
    assert set(short.replace(",", "").split()) <= set(CAPTION.replace(",", "").split())
