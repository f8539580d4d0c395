"""Removes texts and the colour profile from a PNG, because Pillow refuses large ones.

Chunks are copied without decoding.
"""

from __future__ import annotations

import io
import struct
from typing import BinaryIO

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COPIED = frozenset(
    (b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"acTL", b"fcTL", b"fdAT", b"IDAT", b"IEND")
)
# May hold the orientation; stored as it is, so it does not unpack to more.
_XMP = b"XML:com.adobe.xmp\x00\x00"


def is_too_much_text(error: ValueError) -> bool:
    """Whether Pillow refuses a PNG for the size of its texts or of its colour profile."""
    return "MAX_TEXT" in str(error)


def pixels_only(raw: BinaryIO) -> BinaryIO:
    """A PNG with its pixels, palette, transparency and orientation only."""
    raw.seek(len(SIGNATURE))
    copied = [SIGNATURE]
    while len(head := raw.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        content = raw.read(length + 4)
        if kind in _COPIED or (kind == b"iTXt" and content.startswith(_XMP)):
            copied += [head, content]
    return io.BytesIO(b"".join(copied))
