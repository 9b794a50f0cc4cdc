"""Check the images that the entries of an annotation file name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .image_readers import ImageReader, check_images
from .label_images import raise_first

__all__ = ["check_listed_images"]


def check_listed_images(
    entries: Sequence[Mapping[str, Any]], key: str, reader: ImageReader, said_by: str, outcome: str = "cannot be used"
) -> tuple[str, ...]:
    """Check that images are whole, and of the ``width`` and ``height`` that their entries say, if they say any.

    Args:
        entries: What an annotation file says of each image.
        key: The entry of an image's path.
        reader: Who will read them.
        said_by: Where the size stands, for messages.
        outcome: What becomes of an image that is refused, for messages.

    Returns:
        What is to be warned of.

    Raises:
        DataError: An image is missing, broken or of another size; the first one in detail, and how many more.
    """
    sizes = [_size(each) for each in entries]
    found = check_images([Path(each[key]) for each in entries], reader, sizes, said_by)
    raise_first(found.problems, outcome, ". Mend them, or take them out of the annotation file")
    return found.warnings


def _size(entry: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return width and height; None where the entry says none that could be compared."""
    width, height = entry.get("width"), entry.get("height")
    return (width, height) if isinstance(width, int) and isinstance(height, int) else None
