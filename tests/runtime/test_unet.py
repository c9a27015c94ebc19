"""No run changes the model that it was given: not at any call, not in threads, not half-way, not after it.

Every protection, purifier and customization is tried; there is no list of names here.
"""

import copy
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from tiny import photos, tiny_stable_diffusion

from antipure_lib.customization.generate import generate
from antipure_lib.customization.lora import lora
from antipure_lib.customization.registry import CUSTOMIZERS
from antipure_lib.protections.registry import PROTECTIONS, protect_steps
from antipure_lib.purifiers.registry import PURIFIERS, purify
from antipure_lib.runtime.unet import view

PROMPT = "a photo of sks person"
NETWORKS = ("unet", "vae", "text_encoder")
PURIFYING = [name for name, purifier in PURIFIERS.items() if purifier.needs]
PROTECTING = [name for name, protection in PROTECTIONS.items() if protection.needs]


def purified(name, models, x):
    return purify(name, x, ddpm=models.ddpm, pipe=models.pipe, **PURIFIERS[name].quick)


def protection_steps(name, models, x):
    given = {"ddpm": models.ddpm, "pipe": models.pipe, "set_a": photos(2, seed=3)}
    return protect_steps(name, x, **given, **{"steps": 2, "step_size": 4 / 255} | PROTECTIONS[name].quick)


def protected(name, models, x):
    return list(protection_steps(name, models, x))[-1].x_adv


def training_steps(name, models, x, **options):
    prior = {"prior_images": photos(2, seed=4)} if CUSTOMIZERS[name].needs_prior else {}
    return CUSTOMIZERS[name].steps(models.pipe, x, **dict(CUSTOMIZERS[name].quick) | prior | options)


def trained(name, models, x):
    return list(training_steps(name, models, x))[-1].pipe.unet.conv_out.weight.detach()


def generated(name, models, x):
    return generate(getattr(models, name), PROMPT, n=2, steps=3)


RUNS = {name: (purified, name) for name in PURIFYING} | {name: (protected, name) for name in PROTECTING}
RUNS |= {name: (trained, name) for name in CUSTOMIZERS}
RUNS |= {"generate": (generated, "pipe"), "generate with LoRA": (generated, "adapted")}


@pytest.fixture(scope="module")
def models(make_ddpm):
    pipe = tiny_stable_diffusion()
    adapted = lora(pipe, photos(), steps=1, lr=1e-2)
    return SimpleNamespace(ddpm=make_ddpm(), pipe=pipe, adapted=adapted)


def modules_of(models) -> list:
    networks = [getattr(pipe, name, None) for pipe in vars(models).values() for name in NETWORKS]
    return [module for network in networks if network is not None for module in network.modules()]


def looks(models, modules=None) -> list:
    """All of a model that somebody else may notice, but for the weights' values."""
    found = [repr(pipe.scheduler) + str(sorted(vars(pipe.scheduler))) for pipe in vars(models).values()]
    for module in modules or modules_of(models):
        hooks = len(module._forward_hooks), len(module._forward_pre_hooks)
        found.append((id(module), module.training, getattr(module, "gradient_checkpointing", 0), hooks))
        for tensor in (*module._parameters.values(), *module._buffers.values()):
            if tensor is not None:
                found.append((id(tensor), tensor.data_ptr(), tensor.stride(), tensor.requires_grad))
                found.append((tensor._version, tensor.grad is None, tensor.dtype, tensor.is_inference()))
    return found


@contextmanager
def watched(models):
    """At every call of any module in the process the models must look as before."""
    before, modules, networks = looks(models), modules_of(models), []

    def look(module, _):
        if hasattr(module, "config") or type(module).__name__ == "Encoder":  # not each of their layers
            networks.append(module)
            assert looks(models, modules) == before, "changed while a network computes"

    handle = torch.nn.modules.module.register_module_forward_pre_hook(look)
    try:
        yield
    finally:
        handle.remove()
    assert networks and looks(models) == before


@pytest.mark.parametrize("name", RUNS)
def test_no_network_ever_computes_on_a_changed_model(models, pictures, name):
    run, argument = RUNS[name]
    with watched(models):
        run(argument, models, pictures(2))


@pytest.mark.parametrize("name", ["ddpm in training", "frozen", "channels last"])
def test_whatever_state_the_caller_left_the_model_in(make_ddpm, pictures, name):
    """Dropout of a model in training would take part; its other flags change no more than last bits."""
    usual, other = (SimpleNamespace(ddpm=make_ddpm(), pipe=tiny_stable_diffusion()) for _ in "ab")
    unet = other.ddpm.unet
    if name == "ddpm in training":
        unet.train()
        for module in unet.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.5
    elif name == "frozen":
        unet.requires_grad_(False)
    else:
        unet.to(memory_format=torch.channels_last)
    with watched(other):
        ours = purified("gridpure", other, pictures(1)), protected("antipure", other, pictures(1))
    expected = purified("gridpure", usual, pictures(1)), protected("antipure", usual, pictures(1))
    torch.testing.assert_close(ours[0], expected[0], atol=1.01 / 255, rtol=0)
    assert (ours[1] != expected[1]).float().mean() < 0.02


def test_an_interrupted_run_leaves_the_model_as_it_was(models, pictures):
    before = looks(models)
    loops = [protection_steps(name, models, pictures(1)) for name in PROTECTING]
    loops += [PURIFIERS["gridpure"].along(models.ddpm, pictures(1), t=2)]
    loops += [training_steps(name, models, photos(), steps=3) for name in CUSTOMIZERS]
    for states in loops:
        next(states)
        assert looks(models) == before
        with pytest.raises(KeyError):
            states.throw(KeyError)
        assert looks(models) == before


@pytest.mark.parametrize(
    "names",
    [[name] for name in PURIFYING]
    + [
        ["antipure", "diffpure"],
        ["antipure", "end-to-end"],
        ["mist", "generate"],
        ["generate with LoRA", "generate", "advdm", "lora"],
    ],
)
def test_threads_that_share_a_model_get_what_each_gets_alone(models, pictures, names):
    jobs = names * (4 // len(names))
    alone = {name: RUNS[name][0](RUNS[name][1], models, pictures(1)) for name in names}
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda name: RUNS[name][0](RUNS[name][1], models, pictures(1)), jobs))
    for name, result in zip(jobs, found, strict=True):
        assert torch.equal(result, alone[name]), name


# inference mode


@pytest.mark.parametrize("name", [*PURIFYING, "generate", "generate with LoRA"])
def test_a_run_in_inference_mode_is_the_same_and_harms_nothing(models, pictures, name):
    run, argument = RUNS[name]
    expected = run(argument, models, pictures(1))
    with watched(models), torch.inference_mode():
        found = run(argument, models, pictures(1))
    assert torch.equal(found, expected)
    protected("antipure", models, found[..., :16, :16].clone())
    protected("advdm", models, found[..., :16, :16].clone())


@pytest.mark.parametrize("name", [*PROTECTING, *CUSTOMIZERS])
def test_gradients_in_inference_mode_are_refused_before_the_work(models, pictures, name):
    run, argument = RUNS[name]
    with torch.inference_mode(), pytest.raises(RuntimeError, match=r"inference_mode\(\) forbids .*leave it"):
        run(argument, models, pictures(1))


@pytest.mark.parametrize("name", RUNS)
def test_models_and_pictures_made_in_inference_mode_serve_like_others(models, make_ddpm, pictures, name):
    run, argument = RUNS[name]
    with torch.inference_mode():
        made = SimpleNamespace(ddpm=make_ddpm(), pipe=tiny_stable_diffusion())
        x = pictures(1)
    if argument == "adapted":
        made.adapted = lora(made.pipe, photos(), steps=1, lr=1e-2)
    assert x.is_inference() and made.ddpm.unet.conv_in.weight.is_inference()
    assert torch.equal(run(argument, made, x), run(argument, models, pictures(1)))


# views


def test_a_view_shares_what_is_learned_and_keeps_its_own_flags(tiny_ddpm):
    unet = copy.deepcopy(tiny_ddpm.unet).train()
    seen = view(unet)
    assert type(seen) is type(unet) and not seen.training and unet.training
    assert not any(p.requires_grad for p in seen.parameters())
    pairs = zip(unet.parameters(), seen.parameters(), strict=True)
    assert all(ours.data_ptr() == theirs.data_ptr() for ours, theirs in pairs)
    with torch.no_grad():
        unet.conv_in.weight.mul_(2)
    assert torch.equal(seen.conv_in.weight, unet.conv_in.weight)
    seen.enable_gradient_checkpointing()
    seen.mid_block.register_forward_hook(print)
    assert not unet.is_gradient_checkpointing and not unet.mid_block._forward_hooks
    last = view(unet, channels_last=True)
    assert last.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    assert unet.conv_in.weight.is_contiguous() and torch.equal(last.conv_in.weight, unet.conv_in.weight)


def test_a_view_keeps_tied_weights_tied_and_missing_ones_missing():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False), torch.nn.Linear(2, 2))
    model[1].weight = model[0].weight
    seen = view(model, channels_last=True)
    assert seen[0].weight is seen[1].weight is not model[0].weight and seen[0].bias is None
    assert len(list(view(torch.nn.Identity()).parameters())) == 0
