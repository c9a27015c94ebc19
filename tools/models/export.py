"""Write the trained runs as plain diffusers pipelines with fp16 weights.

    python -m tools.models.export runs data/models

Writes `data/models/ddpm` (DDPMPipeline) and `data/models/sd` (StableDiffusionPipeline) from the averaged
weights, and copies each run's loss curve next to them. A pipeline whose run is missing is skipped with a
message; where only the autoencoder's is, the one that stands there already is kept.
"""

import json
import shutil
from pathlib import Path

import torch
from diffusers import DDPMPipeline, StableDiffusionPipeline

from tools import command_line
from tools.models import ddpm, sd
from tools.models.loop import starting_weights
from tools.models.rare_word import make_heard


def averaged(run: Path, name: str, model: torch.nn.Module) -> torch.nn.Module:
    """The model with the run's averaged weights."""
    model.load_state_dict(starting_weights(run, name))
    return model.eval()


def replace_folder(pipeline, folder: Path, curves: dict[str, Path]) -> None:
    """Save a pipeline next to its place as fp16 safetensors, then swap the folders; cards with their pictures
    and older curves are kept.
    """
    fresh = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    pipeline.to(dtype=torch.float16).save_pretrained(fresh, safe_serialization=True)
    for name, path in curves.items():
        shutil.copy(path, fresh / name)
    for kept in folder.glob("*.*"):
        if kept.suffix in (".md", ".png", ".csv") and kept.name not in curves:
            shutil.copy(kept, fresh / kept.name)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"{folder}: {size / 1e6:.1f} MB")


def main(runs: Path, out: Path) -> None:
    if (runs / "ddpm/state.pt").exists():
        unet = averaged(runs / "ddpm", "unet", ddpm.make_unet())
        pipeline = DDPMPipeline(unet=unet, scheduler=ddpm.make_scheduler())
        replace_folder(pipeline, out / "ddpm", {"loss.csv": runs / "ddpm/loss.csv"})
    else:
        print(f"{runs / 'ddpm'}: not trained yet, skipped")
    if (runs / "sd/state.pt").exists():
        new_vae = (runs / "vae/state.pt").exists()
        vae = sd.trained_vae(runs / "vae" if new_vae else out / "sd")
        vae.register_to_config(**json.loads((runs / "sd/scaling.json").read_text()))
        tokenizer = sd.make_tokenizer(runs / "sd/tokenizer")
        text_encoder = averaged(runs / "sd", "text_encoder", sd.make_text_encoder(tokenizer))
        make_heard(text_encoder, tokenizer)
        pipeline = StableDiffusionPipeline(
            vae=vae,
            unet=averaged(runs / "sd", "unet", sd.make_unet()),
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            scheduler=sd.make_scheduler(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        curves = {"loss_unet.csv": runs / "sd/loss.csv"}
        curves |= {"loss_vae.csv": runs / "vae/loss.csv"} if new_vae else {}
        replace_folder(pipeline, out / "sd", curves)
    else:
        print(f"{runs / 'sd'}: not trained yet, skipped")


if __name__ == "__main__":
    parser = command_line(__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    main(given.runs, given.out)
