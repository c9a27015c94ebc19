"""Noise, and TIFF and PNG files and EXIF blocks made by hand: Pillow writes only what it reads well."""

import struct
import zlib

import numpy as np
from PIL import Image

SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 9: 4, 10: 8}  # bytes of TIFF's types
Entries = list[tuple[int, int, bytes]]  # (tag, type, value as it is stored)


def noise(height=24, width=32, low=0, high=256, seed=0) -> Image.Image:
    """A picture of random colours, the levels from low to below high."""
    pixels = np.random.default_rng(seed).integers(low, high, (height, width, 3))
    return Image.fromarray(pixels.astype(np.uint8))


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of these chunks, (kind, data), and its end."""
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in (*chunks, (b"IEND", b"")):
        content += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return content


def directory(entries: Entries, order: str = "<", at: int = 8) -> bytes:
    """A TIFF directory that begins at the file's byte `at`, with its values behind it."""
    end = at + 2 + 12 * len(entries) + 4
    head, tail = struct.pack(order + "H", len(entries)), b""
    for tag, kind, raw in sorted(entries):
        head += struct.pack(order + "HHI", tag, kind, len(raw) // SIZES[kind])
        if len(raw) <= 4:
            head += raw.ljust(4, b"\0")
        else:
            head += struct.pack(order + "I", end + len(tail))
            tail += raw + b"\0" * (len(raw) % 2)
    return head + struct.pack(order + "I", 0) + tail


def exif(main: Entries, camera: Entries = (), order: str = "<") -> bytes:
    """An EXIF block of the main directory's entries and the camera's."""
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    if not camera:
        return b"Exif\0\0" + start + directory(list(main), order)
    at = 8 + len(directory([*main, (0x8769, 4, bytes(4))], order))
    pointer = (0x8769, 4, struct.pack(order + "I", at))
    return b"Exif\0\0" + start + directory([*main, pointer], order) + directory(list(camera), order, at)


def short(*values: int) -> bytes:
    """Numbers of 16 bits, little-endian."""
    return struct.pack(f"<{len(values)}H", *values)


def grey_tiff(
    levels: np.ndarray, bits: int, white_is_zero=False, order="<", signed=False, more: Entries = ()
):
    """A grey TIFF's bytes. levels: H×W whole numbers of so many bits."""
    height, width = levels.shape
    if bits in (16, 32):
        data = levels.astype(f"{order}{'i' if signed else 'u'}{bits // 8}").tobytes()
    else:  # packed, the highest bit first, each row padded to whole bytes
        rows = (levels[..., None] >> np.arange(bits)[::-1]) & 1
        data = np.packbits(rows.reshape(height, -1).astype(np.uint8), axis=1).tobytes()
    values = {256: width, 257: height, 258: bits, 259: 1, 262: 0 if white_is_zero else 1, 277: 1, 278: height}
    values[339] = 2 if signed else 1
    entries = [(tag, 3, struct.pack(order + "H", value)) for tag, value in values.items()]
    entries += [(279, 4, struct.pack(order + "I", len(data))), *more]
    at = 8 + len(directory([*entries, (273, 4, bytes(4))], order))
    entries += [(273, 4, struct.pack(order + "I", at))]
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    return start + directory(entries, order) + data
