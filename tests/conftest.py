"""Fixtures: a random model small enough to differentiate in a test, and pictures that look like something."""

import copy

import pytest
import torch


def pytest_collection_modifyitems(items):
    """The longest file first: processes that share the files out would wait for it at the end."""
    items.sort(key=lambda item: item.path.name != "test_notebooks.py")


@pytest.fixture(autouse=True)
def threads_stay():
    """Another number of threads means other last bits for every test that follows in this process."""
    before = torch.get_num_threads()
    yield
    assert torch.get_num_threads() == before


@pytest.fixture(scope="session")
def make_ddpm():
    """make_ddpm(out_channels, **scheduler): a DDPMPipeline with random weights, 16 px, 1000 linear steps."""
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    def make(out_channels=3, **scheduler):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            unet = UNet2DModel(
                sample_size=16,
                out_channels=out_channels,
                block_out_channels=(8, 16),
                layers_per_block=1,
                norm_num_groups=4,
                down_block_types=("DownBlock2D", "DownBlock2D"),
                up_block_types=("UpBlock2D", "UpBlock2D"),
                add_attention=False,
            )
        pipe = DDPMPipeline(unet.eval(), DDPMScheduler(**scheduler))
        pipe.set_progress_bar_config(disable=True)
        return pipe

    return make


@pytest.fixture(scope="session")
def tiny_ddpm(make_ddpm):
    return make_ddpm()


@pytest.fixture(scope="session")
def tiny_ddpm64(tiny_ddpm):
    """The same in float64, for finite differences."""
    from diffusers import DDPMPipeline

    return DDPMPipeline(copy.deepcopy(tiny_ddpm.unet).double(), tiny_ddpm.scheduler)


@pytest.fixture(scope="session")
def pipe():
    """The latent model of `tiny`, for tests that leave it as it is."""
    from tiny import tiny_stable_diffusion

    return tiny_stable_diffusion()


@pytest.fixture
def pictures():
    """pictures(n, h, w): n×3×h×w smooth colourful 8-bit images."""

    def make(n=2, h=16, w=16, seed=0):
        coarse = torch.rand((n, 3, 4, 4), generator=torch.Generator().manual_seed(seed))
        smooth = torch.nn.functional.interpolate(coarse, (h, w), mode="bilinear", align_corners=True)
        return (smooth * 255).round() / 255

    return make


@pytest.fixture(scope="session")
def tiny_folder(make_ddpm, tmp_path_factory):
    """The random 16 px model as a folder, for commands that load a model by name."""
    folder = tmp_path_factory.mktemp("tiny")
    make_ddpm().save_pretrained(folder)
    return folder
