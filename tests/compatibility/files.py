"""Picture files that situations make by hand, since Pillow writes only what it reads well."""

import struct

import numpy as np

SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 9: 4, 10: 8}  # bytes of TIFF's types
Entries = list[tuple[int, int, bytes]]  # (tag, type, value as it is stored)


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
    """An EXIF block: the main directory's entries and those of the camera's."""
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    if not camera:
        return b"Exif\0\0" + start + directory(list(main), order)
    pointer = [(0x8769, 4, struct.pack(order + "I", 0))]
    at = 8 + len(directory([*main, *pointer], order))
    pointer = [(0x8769, 4, struct.pack(order + "I", at))]
    return b"Exif\0\0" + start + directory([*main, *pointer], order) + directory(list(camera), order, at)


def short(*values: int, order: str = "<") -> bytes:
    """Numbers of 16 bits."""
    return struct.pack(f"{order}{len(values)}H", *values)


def grey_tiff(
    levels: np.ndarray, bits: int, white_is_zero: bool = False, order: str = "<", signed: bool = False
):
    """A grey TIFF's bytes. levels: H×W whole numbers of that many bits."""
    height, width = levels.shape
    if bits == 16:
        data = (
            levels.astype(np.int16 if signed else np.uint16)
            .astype(order + ("i2" if signed else "u2"))
            .tobytes()
        )
    elif bits == 32:
        data = levels.astype(order + "u4").tobytes()
    else:  # packed, the highest bit first, each row padded to whole bytes
        rows = (levels[..., None] >> np.arange(bits)[::-1]) & 1
        data = np.packbits(rows.reshape(height, -1).astype(np.uint8), axis=1).tobytes()
    entries = [(256, width), (257, height), (258, bits), (259, 1), (262, 0 if white_is_zero else 1)]
    entries += [(277, 1), (278, height), (339, 2 if signed else 1)]
    packed = [(tag, 3, short(value, order=order)) for tag, value in entries]
    packed += [(279, 4, struct.pack(order + "I", len(data)))]
    at = 8 + len(directory([*packed, (273, 4, b"\0" * 4)], order))
    packed += [(273, 4, struct.pack(order + "I", at))]
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    return start + directory(packed, order) + data
