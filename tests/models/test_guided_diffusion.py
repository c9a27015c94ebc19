import copy

import pytest
import torch
from adm import ADM, random_adm
from diffusers import DDPMPipeline

from antipure_lib.core.images import to_model
from antipure_lib.models.checkpoints import load_ddpm
from antipure_lib.models.guided_diffusion import convert, load_guided_diffusion
from antipure_lib.purifiers.diffpure import diffpure, gridpure, purify_tiles
from antipure_lib.runtime.noise import image_generators

FULL_SIZE = dict(width=256, mults=(1, 1, 2, 2, 4, 4), depth=2, attention=(3, 4, 5), head_channels=64)
ARCHITECTURES = {
    "attention at the coarsest of two levels": dict(),
    "the released shape, narrower": FULL_SIZE | dict(width=32, head_channels=32),
    "attention in the middle alone": dict(mults=(1, 2, 2), attention=(), head_channels=16),
    "attention everywhere, one head": dict(mults=(1, 1), attention=(0, 1), head_channels=32),
    "attention at one level between, as the FFHQ model": dict(mults=(1, 2, 3), attention=(1,)),
    "three residual blocks, eight heads": dict(mults=(1, 2, 4), depth=3, attention=(2,), head_channels=16),
    "no variance head": dict(out_channels=3),
}


def outputs(model, named, x, t):
    """{name: output} of these modules in one forward pass, and the result under the name "result"."""
    seen = {}

    def keep(name):
        def hook(module, arguments, output):
            seen[name] = output.detach()

        return hook

    hooks = [module.register_forward_hook(keep(name)) for name, module in named.items()]
    with torch.no_grad():
        result = model(x, t)
    seen["result"] = result if isinstance(result, torch.Tensor) else result.sample
    for hook in hooks:
        hook.remove()
    return seen


def pairs(adm, unet, depth, levels):
    """{name: module} of both models' layers, in the order of the forward pass, under the original's names."""
    ours = [unet.time_embedding, unet.conv_in]
    names = ["time_embed.2", "input_blocks.0.0"]

    def add(block, *modules):
        for place, module in enumerate(modules):
            names.append(f"{block}.{place}")
            ours.append(module)

    def layer(block, i):
        attentions = getattr(block, "attentions", None)
        return [block.resnets[i]] + ([attentions[i]] if attentions else [])

    for level, block in enumerate(unet.down_blocks):
        for i in range(depth):
            add(f"input_blocks.{1 + level * (depth + 1) + i}", *layer(block, i))
        if block.downsamplers:
            add(f"input_blocks.{(level + 1) * (depth + 1)}", block.downsamplers[0])
    middle = unet.mid_block
    add("middle_block", middle.resnets[0], middle.attentions[0], middle.resnets[1])
    for level, block in enumerate(unet.up_blocks):
        for i in range(depth + 1):
            up = [block.upsamplers[0]] if i == depth and block.upsamplers else []
            add(f"output_blocks.{level * (depth + 1) + i}", *layer(block, i), *up)
    theirs = dict(adm.named_modules())
    assert len(names) == len(set(names))
    return {name: theirs[name] for name in names}, dict(zip(names, ours, strict=True))


@pytest.mark.parametrize("settings", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_every_layer_agrees_with_another_implementation(settings):
    adm = random_adm(**settings)
    pipe = convert(adm.state_dict(), settings.get("head_channels", 32))
    levels, depth = len(settings.get("mults", (1, 2))), settings.get("depth", 1)
    assert isinstance(pipe, DDPMPipeline) and not pipe.unet.training
    assert pipe.unet.config.sample_size == 8 * 2 ** (levels - 1)
    theirs, ours = pairs(adm, pipe.unet, depth, levels)
    blocks = sum(type(module).__name__ in ("Residual", "Attention") for module in adm.modules())
    assert len(theirs) == 2 + blocks  # no layer of the original is left out of the comparison

    size = 2 ** (levels - 1) * 2  # 2×2 at the coarsest level is enough to tell positions apart
    x = torch.randn((2, 3, size, size), generator=torch.Generator().manual_seed(1)).double()
    t = torch.tensor([3, 700])
    expected, found = outputs(adm, theirs, x, t), outputs(pipe.unet, ours, x, t)
    differences = {name: (found[name] - expected[name]).abs().max().item() for name in expected}
    assert max(differences.values()) < 1e-12, max(differences, key=differences.get)
    assert expected["result"].std() > 0.1 and (expected["result"][0] - expected["result"][1]).std() > 0.1


def test_the_full_size_model_has_the_published_number_of_weights():
    """Shapes alone: 552,814,086 weights are what 256x256_diffusion_uncond.pt holds."""
    with torch.device("meta"):
        adm = ADM(**FULL_SIZE)
    pipe = convert(adm.state_dict())
    assert sum(p.numel() for p in pipe.unet.parameters()) == 552_814_086
    assert pipe.unet.config.sample_size == 256 and pipe.unet.config.out_channels == 6
    scheduler = pipe.scheduler.config
    assert scheduler.variance_type == "learned_range" and scheduler.clip_sample
    assert (scheduler.num_train_timesteps, scheduler.beta_start, scheduler.beta_end) == (1000, 1e-4, 0.02)


def test_the_variance_type_follows_the_head():
    assert (
        convert(random_adm(out_channels=3).state_dict(), 32).scheduler.config.variance_type == "fixed_large"
    )


@pytest.fixture(scope="module")
def adm():
    """The smallest that the default head width of 64 fits: 16 px."""
    return random_adm(width=64, mults=(1, 1), head_channels=64).float()


@pytest.fixture
def checkpoint(adm, tmp_path):
    torch.save(adm.state_dict(), tmp_path / "small.pt")
    return tmp_path / "small.pt"


def test_load_ddpm_reads_the_original_file(adm, checkpoint, tmp_path, capfd):
    x = torch.randn((2, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0, 999])
    pipe = load_ddpm(checkpoint, "cpu", torch.float32)
    with torch.no_grad():
        expected = adm(x, t)
        torch.testing.assert_close(pipe.unet(x, t).sample, expected, atol=1e-5, rtol=1e-4)
    pipe.save_pretrained(tmp_path / "converted")
    again = load_ddpm(tmp_path / "converted", "cpu", torch.float32)
    with torch.no_grad():
        assert torch.equal(again.unet(x, t).sample, pipe.unet(x, t).sample)
    assert again.scheduler.config.variance_type == "learned_range"
    assert load_ddpm(str(checkpoint), "cpu", torch.bfloat16).unet.dtype == torch.bfloat16
    pipe(num_inference_steps=2)  # diffusers' own sampling takes the six channels
    assert capfd.readouterr() == ("", "")


def test_purification_honours_the_learned_variance(adm, checkpoint, pictures):
    """Our chain against diffusers' scheduler on the other implementation's output, with the same noise."""
    import diffusers.schedulers.scheduling_ddpm as module

    pipe = load_ddpm(checkpoint, "cpu", torch.float32)
    x, t = pictures(1), 12
    generator = image_generators(3, 1)[0]
    fixed = copy.copy(pipe)
    fixed.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, variance_type="fixed_large")
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        noise = torch.randn(x.shape, generator=generator)
        x_t = pipe.scheduler.add_noise(to_model(x), noise, torch.tensor([t - 1]))
        for s in reversed(range(t)):
            noise = torch.randn(x.shape, generator=generator) if s else torch.zeros_like(x)
            patch.setattr(module, "randn_tensor", lambda *a, noise=noise, **k: noise)
            x_t = pipe.scheduler.step(adm(x_t, torch.tensor([s])), s, x_t).prev_sample
        expected = ((x_t + 1) / 2).clamp(0, 1)
        ours = purify_tiles(pipe, x, t, image_generators(3, 1))
        other = purify_tiles(fixed, x, t, image_generators(3, 1))
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)
    assert (other - expected).abs().max() > 1e-2  # so the head does matter


@pytest.mark.parametrize("purify", [diffpure, gridpure])
def test_both_purifiers_heed_the_variance_head(checkpoint, pictures, purify):
    x = pictures(1, 24, 16)
    results = {"learned_range": [], "fixed_large": []}
    for kind, images in results.items():
        for bias in (0.0, 9.0):
            pipe = load_ddpm(checkpoint, "cpu", torch.float32)
            pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, variance_type=kind)
            with torch.no_grad():
                pipe.unet.conv_out.bias[3:] += bias
            images.append(purify(pipe, x, t=3))
    assert torch.equal(*results["fixed_large"]) and not torch.equal(*results["learned_range"])


def without(key):
    return lambda state: state.pop(key)


def extra(key):
    return lambda state: state.update({key: torch.zeros(1)})


def cut(key):
    return lambda state: state.update({key: state[key][:-1]})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("time_embed.0.weight"), r"time_embed\.0\.weight: missing"),
        (without("input_blocks.1.0.in_layers.2.bias"), r"input_blocks\.1\.0\.in_layers\.2\.bias: missing"),
        (without("middle_block.1.qkv.bias"), r"middle_block\.1\.qkv\.bias: missing"),
        (without("out.2.weight"), r"out\.2\.weight: missing"),
        (extra("label_emb.weight"), r"label_emb\.weight: the model is class-conditional"),
        (extra("encoder_pool.0.weight"), "classifier"),
        (extra("input_blocks.1.2.weight"), r"input_blocks\.1\.2\.weight: unexpected key"),
        (
            cut("output_blocks.0.0.emb_layers.1.weight"),
            r"output_blocks\.0\.0\.emb_layers\.1\.weight: its shape",
        ),
        (cut("out.0.bias"), r"out\.0\.bias: its shape is \(63,\) where \(64,\) is expected"),
        (
            lambda s: s.update({"input_blocks.3.1.qkv.weight": torch.zeros(30, 10, 1)}),
            "don't divide into heads",
        ),
        (lambda s: [s.pop(k) for k in list(s) if k.startswith("output_blocks")], "no output block"),
    ],
)
def test_another_layout_is_refused_with_the_files_and_the_keys_name(adm, tmp_path, change, message):
    state = dict(adm.state_dict())
    change(state)
    path = tmp_path / "wrong.pt"
    torch.save(state, path)
    with pytest.raises(ValueError, match=message) as error:
        load_ddpm(path, "cpu")
    assert str(error.value).startswith(f"{path}: ")


class Code:
    """Unpickling this writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_file_never_executes_code(adm, tmp_path):
    path, written = tmp_path / "evil.pt", tmp_path / "written"
    torch.save(adm.state_dict() | {"time_embed.0.weight": Code(written)}, path)
    with pytest.raises(ValueError, match=r"evil\.pt.*holds code, which is never run"):
        load_ddpm(path, "cpu")
    assert not written.exists()
    torch.load(path, weights_only=False)  # the trap is a trap
    assert written.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "can't be read"),
        (b"<html>404</html>", "can't be read"),
        (None, "can't be read"),
        ([1, 2], "isn't a table of tensors"),
        ({"state_dict": {}}, "isn't a table of tensors"),
        ({1: torch.zeros(1)}, "isn't a table of tensors"),
        ({}, "no output block"),
    ],
)
def test_damaged_files_are_named(checkpoint, tmp_path, content, message):
    path = tmp_path / "damaged.pt"
    if isinstance(content, bytes | None):
        path.write_bytes(checkpoint.read_bytes()[:1000] if content is None else content)
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match=rf"damaged\.pt.*{message}"):
        load_guided_diffusion(path)
