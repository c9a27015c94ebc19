"""Gradients against central differences."""

import torch


def assert_gradient(f, x: torch.Tensor, directions: int = 2) -> None:
    """The gradient of the scalar f at x, in float64, against differences in random directions."""
    leaf, h = x.clone().requires_grad_(), 1e-6
    (gradient,) = torch.autograd.grad(f(leaf), leaf)
    assert gradient.abs().mean() > 0
    for seed in range(directions):
        generator = torch.Generator().manual_seed(seed)
        direction = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        with torch.no_grad():
            difference = (f(x + h * direction) - f(x - h * direction)) / (2 * h)
        torch.testing.assert_close((gradient * direction).sum(), difference, rtol=1e-5, atol=1e-8)
