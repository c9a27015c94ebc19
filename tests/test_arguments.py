"""What is no number is refused by the argument's name before any work; other kinds of numbers are taken."""

from fractions import Fraction
from inspect import isclass, signature
from math import nan
from pathlib import Path
from types import NoneType, SimpleNamespace, UnionType
from typing import get_args

import numpy as np
import pytest
import torch
from tiny import photos, tiny_stable_diffusion

import antipure_lib as ap
from antipure_lib.benchmark.rows import write_rows
from antipure_lib.photos.jobs import plan_jobs
from antipure_lib.photos.photo import photo_size
from antipure_lib.protections.registry import PROTECTIONS
from antipure_lib.purifiers.registry import PURIFIERS
from antipure_lib.runtime.checks import check_number

# What functions can't do without. Images are of the size of the random models.
NEEDED = {
    **{"t": 1, "g": 4, "height": 16, "width": 16, "side": 16, "n": 8, "patch": 4, "eta": 0.1, "low": 0},
    **{"high": 3, "stride": 1, "seed": 0, "calls": 1, "size": (16, 16), "shape": (1, 3, 16, 16)},
    **{"name": "random", "prompt": "a photo", "seeds": [0], "loss": None, "purify": None, "work": None},
    **{"generator": None, "embedding": None, "rows": {}, "maps": {}},
}
SPECIAL = {"purify": {"name": "jpeg"}, "memory_plan": {"images": 1}, "load_image": {"path": "no.png"}}
IMAGES = "x x0 x_t x_adv x_protected x0_hat eps tiles reference images set_a".split()


def numbers(function) -> dict[str, tuple]:
    """The names of a function's arguments that are numbers, and the types that each may have."""
    kinds = {name: p.annotation for name, p in signature(function).parameters.items()}
    kinds = {n: get_args(kind) if isinstance(kind, UnionType) else (kind,) for n, kind in kinds.items()}
    return {name: kind for name, kind in kinds.items() if int in kind or float in kind}


PUBLIC = {name: getattr(ap, name) for name in ap.__all__}
ARGUMENTS = [
    (name, argument, NoneType in kinds)
    for name, function in PUBLIC.items()
    if callable(function) and not isclass(function)
    for argument, kinds in numbers(function).items()
]


@pytest.fixture(scope="module")
def needed(tiny_ddpm):
    x, pipe = photos(1), tiny_stable_diffusion()
    models = {"ddpm": tiny_ddpm, "pipe": pipe, "scheduler": tiny_ddpm.scheduler}
    models["alpha_bar"] = tiny_ddpm.scheduler.alphas_cumprod
    return NEEDED | models | dict.fromkeys(IMAGES, x) | {"photo": x[0], "delta": x[0]}


def test_all_functions_with_numbers_are_found():
    found = {name for name, *_ in ARGUMENTS}
    assert len(ARGUMENTS) > 150 and {"antipure", "jpeg", "table", "dct_matrix", "photo_panel"} <= found


@pytest.mark.parametrize("name", dict.fromkeys(name for name, *_ in ARGUMENTS))
def test_what_is_no_number_is_refused_by_name(needed, name):
    function = PUBLIC[name]
    values = needed | SPECIAL.get(name, {})
    known = [p for p in signature(function).parameters.values() if p.kind is not p.VAR_KEYWORD]
    given = {p.name: values.get(p.name) for p in known if p.default is p.empty}
    for other, argument, optional in ARGUMENTS:
        if other == name:
            for value in ("1", nan, True, *([] if optional else [None])):
                with pytest.raises((ValueError, TypeError), match=rf"^{argument} must be"):
                    function(**given | {argument: value})


BAD = {
    "seed": [2**63, -1, 1.0, "0", np.float32(1), [1], torch.tensor(0.5)],
    "eta": ["8", 8, 0, -0.1, torch.tensor([0.1, 0.2]), 1j, [0.1]],
    "steps": [2.0, "2", 0, -1, np.float64(2), [2]],
}


@pytest.mark.parametrize("name", [name for name in PROTECTIONS if name != "none"])
def test_every_protection_refuses_bad_numbers_by_name(needed, name):
    given = {key: needed[key] for key in ("ddpm", "pipe", "set_a")}
    for argument in BAD.keys() - ({"steps"} if name == "random" else {}):  # it takes any steps, and uses none
        for value in (*BAD[argument], None, True):
            with pytest.raises(ValueError, match=f"^{argument} must be"):
                ap.protect(name, photos(1), **given | {argument: value})


@pytest.mark.parametrize("name", [name for name, purifier in PURIFIERS.items() if purifier.needs])
def test_every_purifier_refuses_bad_seeds_by_name(needed, name):
    given = {key: needed[key] for key in ("ddpm", "pipe")} | PURIFIERS[name].quick
    for seed in (*BAD["seed"], None, True):
        with pytest.raises(ValueError, match="^seed must be"):
            ap.purify(name, photos(1), **given | {"seed": seed})


KINDS = {
    "NumPy": lambda value: np.array(value)[()],
    "an array without dimensions": np.array,
    "torch": torch.tensor,
    "float32": lambda value: value if isinstance(value, int) else np.float32(value),
}


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_of_numpy_and_torch_are_taken(needed, kind):
    as_kind, x = KINDS[kind], photos(1)
    tiny_ddpm, pipe, set_a = needed["ddpm"], needed["pipe"], photos(2, seed=3)
    aspl = {"pipe": pipe, "set_a": set_a, "steps": 1} | PROTECTIONS["aspl"].quick
    calls = [
        lambda n: ap.jpeg(x, n(75)),
        lambda n: ap.gaussian_blur(x, n(1.0)),
        lambda n: ap.resize_and_back(x, n(0.5)),
        lambda n: ap.keep_low_frequencies(x, x.flip(-1), n(3.0), n(0.5)),
        lambda n: ap.diffpure(tiny_ddpm, x, t=n(2), batch=n(1)),
        lambda n: ap.gridpure(tiny_ddpm, x, t=n(1), iterations=n(1), rounds=n(1), gamma=n(0.25)),
        lambda n: ap.freqpure(tiny_ddpm, x, t=n(1), rounds=n(1), radius=n(2.0)),
        lambda n: ap.antipure(tiny_ddpm, x, steps=n(2), step_size=n(0.0625), patch=n(4), tiles=n(2)),
        lambda n: ap.antipure(tiny_ddpm, x, steps=1, weights=[n(0.5), n(0.25), n(1)], momentum=n(0.5)),
        lambda n: ap.reverse_step(x, x, n(3), tiny_ddpm.scheduler, x),
        lambda n: ap.predict_eps(tiny_ddpm, x, n(3)),
        lambda n: ap.patch_dct(x, n(8)),
        lambda n: ap.merge(ap.extract(x, n(8)), x.shape, n(8)),
        lambda n: ap.checkerboard(n(16), n(4)),
        lambda n: ap.radial_spectrum(x[0], n(4))[1],
        lambda n: ap.protect("random", x, eta=n(0.0625), seed=n(3)),
        lambda n: ap.protect("aspl", x, eta=n(0.0625), seed=n(3), **aspl),
        lambda n: ap.antipure(tiny_ddpm, x, eta=n(0.0625), steps=1, seed=n(3)),
        lambda n: ap.purify("diffpure2", x, ddpm=tiny_ddpm, seed=n(3)),
        lambda n: ap.lora(pipe, x, steps=n(1), seed=n(3)).unet.conv_out.weight,
        lambda n: ap.generate(pipe, "a photo", n=n(1), steps=n(1), seed=n(3)),
    ]
    for number, call in enumerate(calls):
        assert torch.equal(call(as_kind), call(lambda value: value)), number


@pytest.mark.parametrize("value", [3, np.int8(3), np.float32(3), Fraction(3), torch.tensor(3), np.array(3.0)])
def test_numbers_become_plain(value):
    assert check_number(value, "x") == 3.0 and type(check_number(value, "x")) is float


@pytest.mark.parametrize("eta", [np.float32(8 / 255), torch.tensor(8 / 255), np.float16(8 / 255)])
def test_a_coarse_number_stays_within_its_own_budget(needed, eta):
    x = photos(1)
    change = (ap.antipure(needed["ddpm"], x, eta=eta, steps=1, step_size=9 / 255) - x).abs().max()
    assert 6.5 / 255 < change <= float(eta) + 1e-6


def test_a_path_may_begin_with_the_users_own_folder(tmp_path, monkeypatch, tiny_folder):
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    x = ap.quantise(photos(1)[0])
    assert ap.save_image(x, "~/new/a.png") == home / "new/a.png"
    assert ap.load_image(Path("~/new/a.png")).equal(x) and photo_size("~/new/a.png") == (16, 16)
    photo = ap.read_photo("~/new/a.png")
    assert ap.save_photo(photo, photo.x, "~/b.png") == home / "b.png"
    write_rows("~/rows.csv", [])
    assert ap.read_rows("~/rows.csv") == []
    (job,) = plan_jobs(["~/b.png"], "~/out", "protect")
    assert (job.photo, job.output) == (home / "b.png", home / "out/b.png")
    (home / "model").symlink_to(tiny_folder)
    assert ap.load_ddpm("~/model").unet.config.sample_size == 16
    assert not Path("~").exists()


@pytest.mark.parametrize(
    "weights", [0.5, "0.5", None, (1, 1), ("1", "1", "1"), {"ddpm": 1}, torch.tensor(1.0), (1, 1, nan)]
)
def test_weights_that_are_none_are_refused(tiny_ddpm, weights):
    with pytest.raises(ValueError, match="^weights must be three finite numbers"):
        ap.antipure(tiny_ddpm, photos(1), weights=weights)


def test_three_weights_of_numpy_and_torch_are_taken(tiny_ddpm):
    expected = ap.antipure(tiny_ddpm, photos(1), steps=1, weights=(1, 0.5, 0.5))
    for weights in (np.array([1, 0.5, 0.5]), torch.tensor([1, 0.5, 0.5]), [1, 0.5, 0.5]):
        assert torch.equal(ap.antipure(tiny_ddpm, photos(1), steps=1, weights=weights), expected)


@pytest.mark.parametrize("name", [75, None, b"jpeg75", ["jpeg75"], SimpleNamespace()])
def test_a_name_that_is_no_text_is_refused(name):
    for call in (ap.purify, ap.protect, ap.protect_steps):
        with pytest.raises(ValueError, match="^name must be a text such as"):
            call(name, photos(1))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("to_q", r"several names, got 'to_q'; one is written \['to_q'\]"),
        ([], "several names"),
        (None, "several names"),
        (["nothing"], "'nothing' is none"),
        (["to_q", "nothing"], "'nothing' is none"),
        (["norm1"], "'norm1' is none"),
        ([3], "3 is none"),
        (["o_q"], "'o_q' is none"),
    ],
)
def test_layers_that_are_none_are_refused(layers, message):
    with pytest.raises(ValueError, match=f"^layers must .*{message}"):
        ap.lora_steps(tiny_stable_diffusion(), photos(1), layers=layers)
