import pytest
import torch
from adm import ADM, Code, random_adm

from antipure_lib.models.checkpoints import load_ddpm
from antipure_lib.models.guided_diffusion import convert, load_guided_diffusion

FULL_SIZE = dict(width=256, mults=(1, 1, 2, 2, 4, 4), depth=2, attention=(3, 4, 5), head_channels=64)
ARCHITECTURES = {
    "attention at the coarsest of two levels": dict(),
    "the released shape, narrower": FULL_SIZE | dict(width=32, head_channels=32),
    "attention in the middle alone": dict(mults=(1, 2, 2), attention=(), head_channels=16),
    "attention at one level between, as the FFHQ model": dict(mults=(1, 2, 3), attention=(1,)),
    "three residual blocks, eight heads": dict(mults=(1, 2, 4), depth=3, attention=(2,), head_channels=16),
    "no variance head": dict(out_channels=3),
}


@pytest.mark.parametrize("settings", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_the_result_is_that_of_another_implementation(settings):
    """Every weight is random and in float64, so one in a wrong place shows in the result."""
    adm = random_adm(**settings)
    pipe = convert(adm.state_dict(), settings.get("head_channels", 32))
    levels = len(settings.get("mults", (1, 2)))
    assert not pipe.unet.training and pipe.unet.config.sample_size == 8 * 2 ** (levels - 1)
    variance = "fixed_large" if settings.get("out_channels") == 3 else "learned_range"
    assert pipe.scheduler.config.variance_type == variance
    size = 2 ** (levels - 1) * 2  # 2×2 at the coarsest level is enough to tell positions apart
    x = torch.randn((2, 3, size, size), generator=torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        expected, found = adm(x, torch.tensor([3, 700])), pipe.unet(x, torch.tensor([3, 700])).sample
    assert (found - expected).abs().max() < 1e-12
    assert expected.std() > 0.1 and (expected[0] - expected[1]).std() > 0.1


def test_the_full_size_model_has_the_published_number_of_weights():
    """Shapes alone: 552,814,086 weights are what 256x256_diffusion_uncond.pt holds."""
    with torch.device("meta"):
        adm = ADM(**FULL_SIZE)
    pipe = convert(adm.state_dict())
    assert sum(p.numel() for p in pipe.unet.parameters()) == 552_814_086
    assert pipe.unet.config.sample_size == 256 and pipe.unet.config.out_channels == 6
    scheduler = pipe.scheduler.config
    assert (scheduler.num_train_timesteps, scheduler.beta_start, scheduler.beta_end) == (1000, 1e-4, 0.02)
    assert scheduler.clip_sample


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


def cut(key):
    return lambda state: state.update({key: state[key][:-1]})


def change(missing=None, **extra):
    return lambda state: (
        [state.pop(key) for key in list(state) if missing and key.startswith(missing)]
        or (state.update({key.replace("__", "."): torch.zeros(shape) for key, shape in extra.items()}))
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change("time_embed.0.weight"), r"time_embed\.0\.weight: missing"),
        (change("middle_block.1.qkv.bias"), r"middle_block\.1\.qkv\.bias: missing"),
        (change("out.2.weight"), r"out\.2\.weight: missing"),
        (change("output_blocks"), "no output block"),
        (change(label_emb__weight=1), r"label_emb\.weight: the model is class-conditional"),
        (change(encoder_pool__0__weight=1), "classifier"),
        (change(input_blocks__1__2__weight=1), r"input_blocks\.1\.2\.weight: unexpected key"),
        (change(input_blocks__3__1__qkv__weight=(30, 10, 1)), "don't divide into heads"),
        (
            cut("output_blocks.0.0.emb_layers.1.weight"),
            r"output_blocks\.0\.0\.emb_layers\.1\.weight: its shape",
        ),
        (cut("out.0.bias"), r"out\.0\.bias: its shape is \(63,\) where \(64,\) is expected"),
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


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module.module.", "model.diffusion_model."])
def test_wrappers_prefixes_and_other_precisions_are_read(adm, checkpoint, tmp_path, prefix):
    state = {prefix + key: torch.nn.Parameter(value.half()) for key, value in adm.state_dict().items()}
    torch.save(state, tmp_path / "wrapped.pt")
    found, right = (
        load_guided_diffusion(path).unet.state_dict() for path in (tmp_path / "wrapped.pt", checkpoint)
    )
    assert all(torch.equal(found[key], value.half().float()) for key, value in right.items())
    torch.save({"ema." + key: value for key, value in state.items()} | state, tmp_path / "both.pt")
    with pytest.raises(ValueError, match=r"both\.pt: ema.*: unexpected key"):
        load_guided_diffusion(tmp_path / "both.pt")


def test_a_file_never_executes_code(adm, tmp_path):
    path, written = tmp_path / "evil.pt", tmp_path / "written"
    torch.save(adm.state_dict() | {"time_embed.0.weight": Code(written)}, path)
    with pytest.raises(ValueError, match=r"evil\.pt: it holds code or objects.*never run"):
        load_ddpm(path, "cpu")
    assert not written.exists()
    torch.load(path, weights_only=False)  # the trap is a trap
    assert written.exists()


@pytest.mark.parametrize(
    "content", [[1, 2], torch.zeros(3), {1: torch.zeros(1)}, {"model": {}}, {"step": 3}, {}]
)
def test_other_contents_are_named(tmp_path, content):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other\.pt: (it holds a|its .* isn't a tensor of|no output block)"):
        load_guided_diffusion(tmp_path / "other.pt")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_damaged_file_is_named_wherever_it_is_cut(adm, tmp_path, zipped):
    path = tmp_path / "cut.pt"
    torch.save(adm.state_dict(), path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    cuts = [0, 1, 4, 100, 5000, 31_000, len(whole) // 2, len(whole) - 1000, len(whole) - 1]
    others = [b"<html>404</html>" * 99, b"PK\x03\x04" * 99, bytes(9999)]
    for content in [*(whole[:cut] for cut in cuts), *others]:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"^\S*cut\.pt: it is damaged, or isn't a PyTorch file"):
            load_guided_diffusion(path)
    for wrong, error in ((tmp_path, OSError), (tmp_path / "no.pt", OSError), (None, ValueError)):
        with pytest.raises(error, match="no.pt|path must name|" + tmp_path.name):
            load_guided_diffusion(wrong)
