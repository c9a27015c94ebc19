"""Models that several threads, or an interrupted generator, look at: nobody may see them changed."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from unittest import mock

import torch

import antipure_lib as ap

from .helpers import ddpm, photos, picture, pipe
from .registry import situation

ETA = 8 / 255
LEARN = {"steps": 2, "batch": 1}
FEW = {"eta": ETA, "steps": 2}


def state(model) -> list:
    """All of a pipeline that a computation may depend on, besides its weights' values."""
    seen = []
    for name, part in sorted(model.components.items()):
        if isinstance(part, torch.nn.Module):
            for key, p in part.named_parameters():
                now = {"requires_grad": p.requires_grad, "precision": p.dtype, "order in memory": p.stride()}
                seen.append((f"{name}.{key}", now | {"inference tensor": p.is_inference()}))
            for key, m in part.named_modules():
                now = {
                    "training mode": m.training,
                    "hooks": (len(m._forward_hooks), len(m._forward_pre_hooks)),
                }
                now |= {"class": type(m).__name__, "recomputing": getattr(m, "gradient_checkpointing", None)}
                seen.append((f"{name}.{key}", now))
        elif name == "scheduler":
            seen += [(name, {key: str(value)}) for key, value in sorted(vars(part).items())]
    return seen


@contextmanager
def watched(model):
    """Whoever computes with the networks' classes inside the block, the model must be as it was before."""
    before, looks = state(model), []

    def look(forward):
        def looking(self, *args, **kwargs):
            looks.append(_difference(before, state(model)))
            return forward(self, *args, **kwargs)

        return looking

    networks = [part for part in model.components.values() if isinstance(part, torch.nn.Module)]
    parts = {type(part) for part in networks} | {
        type(part.encoder) for part in networks if hasattr(part, "encoder")
    }
    with ExitStack() as stack:
        for kind in parts:
            stack.enter_context(mock.patch.object(kind, "forward", look(kind.forward)))
        yield
    assert looks, "no network computed anything"
    found = next(filter(None, looks), None) or _difference(before, state(model))
    assert not found, f"the caller's model changes: {found}"


def _difference(before, now):
    if before == now:
        return None
    changed = [(new, old) for new, old in zip(now, before, strict=False) if new != old]
    if not changed:
        return "it has other parts"
    (name, new), (_, old) = changed[0]
    what = ", ".join(key for key in new if new[key] != old.get(key))
    return f"{what} of {name} ({len(changed)} changes in all)"


PURIFY = {
    "diffpure": lambda m, x: ap.diffpure(m, x, t=2),
    "gridpure": lambda m, x: ap.gridpure(m, x, t=1, iterations=2),
    "antipure": lambda m, x: ap.antipure(m, x, **FEW),
    "end to end": lambda m, x: ap.protect("end-to-end", x, ddpm=m, t=2, stride=1, iterations=1, **FEW),
}


@situation("diffusers 1606", "shared model", cases=PURIFY)
def pixel_model_is_never_seen_changed(work):
    """Another thread looks at the model while it is used"""
    model = ddpm()
    with watched(model):
        work(model, picture(16, 24))


LATENT = {
    "advdm": lambda p: ap.protect("advdm", photos(), pipe=p, **FEW),
    "mist": lambda p: ap.protect("mist", photos(), pipe=p, **FEW),
    "lora, recomputing": lambda p: ap.lora(p, photos(2), gradient_checkpointing=True, **LEARN),
    "dreambooth": lambda p: ap.dreambooth(p, photos(2), n_prior=1, **LEARN),
}


@situation("diffusers 7450", "shared model", cases=LATENT, slow=["dreambooth"])
def latent_model_is_never_seen_changed(work):
    """Another thread looks at the pipeline while it is used"""
    model = pipe()
    with watched(model):
        work(model)


@situation("diffusers 3672", "shared model", cases=["DDIM", "PNDM", "Euler", "DPM-Solver"])
def scheduler_is_never_seen_changed(name):
    """Another thread looks at the pipeline while it generates, scheduler included"""
    model = pipe()
    model.scheduler = scheduler(name, model.scheduler.config)
    model.scheduler.set_timesteps(3)
    with watched(model):
        ap.generate(model, "a photo of a person", n=1, steps=3)


def scheduler(name, config):
    """One of diffusers' schedulers by a short name."""
    import diffusers

    kinds = {"PNDM": "PNDMScheduler", "Euler": "EulerDiscreteScheduler", "DDIM": "DDIMScheduler"}
    kinds["DPM-Solver"] = "DPMSolverMultistepScheduler"
    options = {"skip_prk_steps": True} if name == "PNDM" else {}  # as Stable Diffusion has it
    return getattr(diffusers, kinds[name]).from_config(config, **options)


def in_threads(works: list, times: int) -> str:
    """Run the works side by side again and again; every result must be the one that it has alone."""
    alone = [work() for work in works]
    jobs = [(work, right) for _ in range(times) for work, right in zip(works, alone, strict=True)]
    with ThreadPoolExecutor(4) as pool:
        pairs = list(pool.map(lambda job: (job[0](), job[1]), jobs))
    off = [(got - right).abs().max().item() * 255 for got, right in pairs]
    wrong = [size for size in off if size > 0]
    assert not wrong, f"{len(wrong)} of {len(off)} results wrong, by up to {max(wrong):.0f}/255"


@situation("diffusers 1606", "shared model", fast=False)
def four_threads_purify():
    """Four threads purify with one model, 600 times"""
    model, x = ddpm(), picture(16, 16)
    in_threads([lambda: ap.diffpure(model, x, t=2)] * 4, 150)


@situation("Qwen-Image 236", "shared model", fast=False, cases=["DDIM", "Euler"])
def four_threads_generate(name):
    """Four threads generate with one pipeline, 20 times"""
    model = pipe()
    model.scheduler = scheduler(name, model.scheduler.config)

    def work(seed):
        return lambda: ap.generate(model, "a photo of a person", n=1, steps=4, seed=seed)

    in_threads([work(seed) for seed in range(4)], 5)


@situation("diffusers 12328", "shared model", fast=False)
def threads_share_a_tokenizer():
    """Four threads train with one pipeline's tokenizer ("Already borrowed")"""
    model, x = pipe(), photos(2)
    prompts = ["a photo of sks person", "sks", "a photo of a person with brown hair", "a person"]

    def work(prompt):
        return lambda: next(iter(ap.lora_steps(model, x, prompt=prompt, steps=1, batch=1))).loss

    in_threads([work(prompt) for prompt in prompts], 3)


@situation(
    "peft 1161",
    "shared model",
    cases={"lora": lambda p: ap.lora(p, photos(2), **LEARN), "dreambooth": LATENT["dreambooth"]},
)
def base_model_stays(learn):
    """The base pipeline gives the same pictures after somebody customized it"""
    model = pipe()
    before = ap.generate(model, "a person", n=1, steps=2)
    learn(model)
    assert not getattr(model.unet, "peft_config", None), "the base has an adapter"
    assert ap.generate(model, "a person", n=1, steps=2).equal(before), "other pictures"


@situation("foolbox 74", "shared model", cases=["diffpure", "antipure"])
def model_in_training_mode(work):
    """A model that was left in training mode"""
    model, right = ddpm(), PURIFY[work](ddpm(), picture(16, 16))
    model.unet.train()
    for module in model.unet.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    again = PURIFY[work](model, picture(16, 16))
    assert model.unet.training, "the caller's mode changed"
    assert again.equal(right), "dropout is active: another result"


INFERENCE = {name: PURIFY[name] for name in ("diffpure", "gridpure")}


@situation("diffusers 1658", "inference mode", cases=INFERENCE)
def purified_in_inference_mode(work):
    """A model purifies in torch.inference_mode() and protects afterwards"""
    model = ddpm()
    right = ap.antipure(ddpm(), picture(16, 16), **FEW)
    with torch.inference_mode():
        work(model, picture(16, 24))
    assert ap.antipure(model, picture(16, 16), **FEW).equal(right), "another result"


@situation("diffusers 1658", "inference mode")
def generated_in_inference_mode():
    """A pipeline generates in torch.inference_mode() and is trained afterwards"""
    model = pipe()
    with torch.inference_mode():
        ap.generate(model, "a person", n=1, steps=2)
    ap.lora(model, photos(2), **LEARN)


@situation(
    "diffusers 1658",
    "inference mode",
    cases={
        "pixel model protects": lambda: ap.antipure(_loaded(ap.load_ddpm), picture(), **FEW),
        "pipeline is trained": lambda: ap.lora(_loaded(ap.load_stable_diffusion), photos(2), **LEARN),
    },
)
def loaded_in_inference_mode(work):
    """A model that was loaded in torch.inference_mode()"""
    work()


def _loaded(load):
    with torch.inference_mode():
        return load()


@situation(
    "PyTorch 161164",
    "inference mode",
    cases={
        "antipure": lambda x: ap.antipure(ddpm(), x[..., :16, :16], **FEW),
        "lora": lambda x: ap.lora(pipe(), x, **LEARN),
    },
)
def photos_from_inference_mode(work):
    """Photos that were loaded in torch.inference_mode()"""
    with torch.inference_mode():
        x = ap.load_faces("p01", "B")[:2]
    work(x)


@situation("own", "inference mode", cases=["no_grad", "inference_mode"])
def cached_transform(mode):
    """A table that is cached on its first use in a mode without gradients serves gradients later"""
    with getattr(torch, mode)():
        ap.patch_dct(torch.zeros(1, 3, 24, 24), 12)
    x = torch.zeros(1, 3, 24, 24, requires_grad=True)
    ap.patch_frequency_guidance(x, 12).sum().backward()
