"""A denoiser with one planted weakness, which every attack on or through a purifier must find.

(The idea: Zimmermann et al. 2022, arXiv 2206.13991.) The weakness is a pattern p of signs, those of PFG's
kernel. An attack has found it if ⟨δ, p⟩ is nearly the whole budget.
"""

from types import SimpleNamespace

import pytest
import torch

from antipure_lib.core.guidance import dct_matrix
from antipure_lib.protections.registry import PROTECTIONS, protect

ETA, T_ERR = 16 / 255, 500
THROUGH = ["end-to-end", "workflow"]
AGAINST = ["pixel-ddpm", "pfg", "etg", "antipure", "antipure-paper", "antipure-pfg", "antipure-etg"]


def pattern(name):
    """The sign of the tiled kernel Σ_{m,n ≥ 4} of an 8×8 DCT, 16×16.

    For PFG alone one patch of four is negated: it finds its own kernel in any model.
    """
    high = dct_matrix(8)[4:].sum(0)
    p = torch.outer(high, high).sign().repeat(2, 2)
    if name == "pfg":
        p[:8, :8] *= -1
    return p


class Planted(torch.nn.Module):
    """A UNet for one photo x that sees in x_t the amount a of the pattern, and is weak there.

    leaves: x̂0 = x + a·p, so purification removes all of δ but its share along p.
    errs: ε_θ = −w·a·p, w = √ᾱ/(20σ). The error of ε_θ depends on δ along p alone. With a, x̂0 gains the
    high frequencies that PFG counts, and ε_θ(x_t, t) comes near ε_θ(x_t, t_err), which is fixed.
    """

    def __init__(self, x, scheduler, p, leaves):
        super().__init__()
        self.register_buffer("x0", 2 * x - 1)
        self.register_buffer("p", p)
        self.alphas, self.leaves = scheduler.alphas_cumprod, leaves
        self.config = SimpleNamespace(sample_size=16, in_channels=3, out_channels=3)
        self.dtype, self.device = x.dtype, x.device

    def forward(self, x_t, t):
        t = torch.as_tensor(t).expand(len(x_t))
        root, sigma = (a.sqrt().view(-1, 1, 1, 1) for a in (self.alphas[t], 1 - self.alphas[t]))
        amount = ((x_t / root - self.x0) * self.p).mean((1, 2, 3), keepdim=True)
        if self.leaves:
            return SimpleNamespace(sample=(x_t - root * (self.x0 + amount * self.p)) / sigma)
        wrong = (t == T_ERR).view(-1, 1, 1, 1)
        return SimpleNamespace(sample=torch.where(wrong, -self.p, -root / sigma / 20 * amount * self.p))


def found(name, x, ddpm, pipe):
    """⟨δ, p⟩ / (η·number of values): ±1 if δ = ±η·p."""
    options = {"step_size": 2 / 255} | ({"t": 4, "stride": 2, "gamma": 0.0} if name in THROUGH else {})
    options |= {} if name in THROUGH or name == "random" else {"t_err": T_ERR}
    protected = protect(name, x, ddpm=ddpm, pipe=pipe, eta=ETA, steps=30, **options)
    return float(((protected - x) * pattern(name)).mean() / ETA)


@pytest.mark.parametrize("name", [*THROUGH, *AGAINST])
def test_the_planted_weakness_is_found(tiny_ddpm, pipe, pictures, name):
    """What "find" means depends on what an attack aims at.

    The exact gradient and the workflow attack see what purification leaves. They find the one pattern that
    it leaves; on all others their budget would be lost. AntiPure and its terms see one noise level and no
    purification. L_ddpm finds the pattern along which ε_θ errs, and ETG the one that brings the answers at t
    and at t_err together. PFG alone finds the one pattern that x̂0 keeps, although its kernel is another.
    AntiPure finds p where it is the weakness of all three.
    """
    x = 0.25 + pictures(1) / 2
    unet = Planted(x, tiny_ddpm.scheduler, pattern(name), leaves=name in (*THROUGH, "pfg"))
    share = found(name, x, SimpleNamespace(unet=unet, scheduler=tiny_ddpm.scheduler), pipe)
    assert abs(share) > 0.9


def test_a_method_that_does_not_look_finds_nothing(tiny_ddpm, pipe, pictures):
    assert abs(found("random", 0.25 + pictures(1) / 2, tiny_ddpm, pipe)) < 0.15


def test_every_attack_on_a_purifier_is_tried():
    assert {*THROUGH, *AGAINST} == {name for name, method in PROTECTIONS.items() if "ddpm" in method.needs}
