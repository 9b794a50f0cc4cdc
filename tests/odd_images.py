"""Image files that cameras, tools and accidents leave behind, as bytes."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

XMP = b'http://ns.adobe.com/xap/1.0/\0<rdf:Description tiff:Orientation="6"/>'


def picture(width: int = 40, height: int = 30) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8))


def encoded(image: Image.Image, kind: str = "JPEG", orientation: int | None = None) -> bytes:
    options = {}
    if orientation is not None:
        options["exif"] = Image.Exif()
        options["exif"][274] = orientation
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def with_xmp(jpeg: bytes) -> bytes:
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(XMP) + 2) + XMP + jpeg[2:]


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_chunk(png: bytes, kind: bytes, content: bytes, *, last: bool = False) -> bytes:
    place = len(png) - 12 if last else 33
    return png[:place] + chunk(kind, content) + png[place:]


def claiming(image: bytes, width: int, height: int) -> bytes:
    """Return a PNG or JPEG whose header says another size."""
    if image.startswith(b"\x89PNG"):
        return image[:8] + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) + image[33:]
    place = image.index(b"\xff\xc0")
    return image[: place + 5] + struct.pack(">HH", height, width) + image[place + 9 :]


def changed(image: bytes, marker: bytes, offset: int, content: bytes) -> bytes:
    place = image.index(marker) + offset
    return image[:place] + content + image[place + len(content) :]


def scan_replaced(jpeg: bytes, seed: int = 1) -> bytes:
    """Return a JPEG with random bytes in the middle of its pixels."""
    middle, length = len(jpeg) * 2 // 3, min(len(jpeg) // 4, 2000)
    return jpeg[:middle] + np.random.default_rng(seed).bytes(length) + jpeg[middle + length :]


def write(path: Path, content: bytes, age: float = 60) -> Path:
    """Write a file that is so old that the cache may keep what is read from it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    then = path.stat().st_mtime - age
    os.utime(path, (then, then))
    return path
