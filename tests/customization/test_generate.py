"""Images of a prompt against the pipeline's own."""

import copy

import torch

from antipure_lib.customization.generate import generate
from antipure_lib.runtime.noise import image_generators

PROMPT = "a photo of sks person"


def test_generate_is_the_pipeline_itself(pipe):
    images = generate(pipe, PROMPT, n=3, seed=5, steps=4, guidance=2.0)
    options = {"num_inference_steps": 4, "guidance_scale": 2.0, "output_type": "np"}
    expected = copy.deepcopy(pipe)([PROMPT] * 3, generator=image_generators(5, 3), **options).images
    assert images.shape == (3, 3, 16, 16) and images.dtype == torch.float32
    assert 0 <= images.min() and images.max() <= 1
    assert torch.allclose(images, torch.from_numpy(expected).permute(0, 3, 1, 2), atol=1e-6)


def test_generate_depends_on_seed_and_position_not_on_batch(pipe):
    five = generate(pipe, PROMPT, n=5, seed=1, steps=3)
    assert torch.equal(five, generate(pipe, PROMPT, n=5, seed=1, steps=3))
    assert torch.allclose(five, generate(pipe, PROMPT, n=5, seed=1, steps=3, batch=2), atol=1e-5)
    assert torch.allclose(five[:2], generate(pipe, PROMPT, n=2, seed=1, steps=3), atol=1e-5)
    assert not torch.allclose(five, generate(pipe, PROMPT, n=5, seed=2, steps=3), atol=1e-2)
    assert not torch.allclose(five[0], five[1], atol=1e-2)


def test_generate_halves_its_batch_when_memory_runs_out(pipe, monkeypatch):
    tight, sizes = copy.deepcopy(pipe), []
    decode = tight.vae.decode

    def limited(z, **options):
        sizes.append(len(z))
        if len(z) > 2:  # after the whole sampling, which has drawn its noise
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return decode(z, **options)

    monkeypatch.setattr(tight.vae, "decode", limited)
    images = generate(tight, PROMPT, n=5, steps=3, batch=5)
    assert sizes == [5, 2, 2, 1]
    assert torch.equal(images, generate(pipe, PROMPT, n=5, steps=3, batch=2))
