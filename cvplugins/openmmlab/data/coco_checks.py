"""What mmdet's CocoDataset makes of an annotation file: which label means what, and which boxes reach training."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cvplugins.datasets import ClassCounts, box_problem, check_coco_file
from cvplugins.errors import DataError

__all__ = ["CocoFile", "check_once", "forget_checks", "read_coco_file"]

logger = logging.getLogger(__name__)

# How each file was checked, by path, size and time of its last change.
_passed: dict[tuple[Any, ...], list[tuple[str, frozenset[str]]]] = {}


@dataclass(frozen=True)
class CocoFile:
    """The parts of an annotation file that decide what labels mean.

    Attributes:
        path: Of the file.
        categories: Name and id of each category, in the file's order.
        images: By id.
        annotations: As they stand in the file.
    """

    path: Path
    categories: tuple[tuple[str, Any], ...]
    images: dict[Any, dict[str, Any]]
    annotations: list[dict[str, Any]]

    def labels(self, classes: Sequence[str]) -> list[tuple[str, Any]]:
        """Return name and id of the category that each label stands for, as pycocotools' ``getCatIds`` gives them.

        The order is the file's, whatever the order of ``classes`` is.
        """
        return [(name, number) for name, number in self.categories if name in classes]

    def check_labels(self, classes: Sequence[str], place: str) -> None:
        """Raise ``DataError`` unless labels mean, in this file, what ``classes`` says.

        Args:
            classes: Names of a dataset's classes.
            place: What messages call the dataset.
        """
        there = [name for name, _ in self.labels(classes)]
        names = [name for name, _ in self.categories]
        missing = [name for name in classes if name not in names]
        how = f"set metainfo=dict(classes=...) of {place} to the names in the file, in its order: {tuple(names)}"
        if missing:
            raise DataError(
                f"{self.path}: of the {len(classes)} classes of {place} it has no category {missing[0]!r}; "
                f"{how if len(names) <= 20 else 'name the classes as the file does'}"
            )
        twice = [name for name, count in Counter(there).items() if count > 1]
        if twice:
            raise DataError(f"{self.path}: two categories are called {twice[0]!r}, so labels would shift; rename one")
        for label, (name, number) in enumerate(self.labels(classes)):
            if name != classes[label]:
                raise DataError(
                    f"{self.path}: label {label} is the category {name!r} (id {number}), by the order of the file's "
                    f"categories, but {classes[label]!r} in the classes of {place}; {_reorder(there)}"
                )

    def check_boxes(self, classes: Sequence[str]) -> tuple[ClassCounts, list[str]]:
        """Return how many objects CocoDataset loads, and what is wrong with boxes that it does not leave out itself."""
        names = {number: name for name, number in self.categories}
        counts, unusable, left_out = ClassCounts(), [], []
        # In the order of CocoDataset.parse_data_info.
        for number, entry in enumerate(self.annotations):
            image = self.images.get(entry["image_id"])
            if image is None:
                continue
            name = str(names.get(entry["category_id"], f"category {entry['category_id']}"))
            passed_over = entry.get("ignore") or _is_left_out(entry, image)
            if name not in classes:
                counts.leave_out(name, str(self.path))
            elif passed_over:
                left_out.append(self._name(number, name, image))
                counts.add(name, usable=False)
            else:
                x, y, width, height = entry["bbox"]
                problem = box_problem((x, y, x + width, y + height))
                if problem:
                    unusable.append(f"{self._name(number, name, image)}: {problem}")
                counts.add(name, usable=not entry.get("iscrowd") and not problem)
        if left_out:
            logger.warning(
                "%s: CocoDataset leaves out %d objects that are narrower than a pixel, lie outside their image, have "
                "no area or say ignore; the first one: %s",
                self.path,
                len(left_out),
                left_out[0],
            )
        return counts, unusable

    def _name(self, number: int, name: str, image: dict[str, Any]) -> str:
        found = self.annotations[number]
        return f"{self.path}: annotations[{number}] (id {found['id']}, {name!r}, image {image['file_name']})"


def _is_left_out(entry: dict[str, Any], image: dict[str, Any]) -> bool:
    """Return whether CocoDataset passes over a box; its comparisons are such that it does so with NaN."""
    x, y, width, height = entry["bbox"]
    inside = max(0, min(x + width, image["width"]) - max(x, 0))
    inside *= max(0, min(y + height, image["height"]) - max(y, 0))
    return inside == 0 or entry["area"] <= 0 or width < 1 or height < 1


def check_once(path: Path, masks: str, required: Collection[str] = ()) -> None:
    """Check an annotation file as :func:`check_coco_file` does, unless it has passed that here, or more.

    A dataset and its metrics usually read one file.

    Args:
        path: The file.
        masks: See :func:`check_coco_file`.
        required: See :func:`check_coco_file`.

    Raises:
        DataError: The file is not JSON, or a part or key is missing or of another type.
    """
    state = path.stat() if path.is_file() else None
    key = (str(path.resolve()), state and state.st_size, state and state.st_mtime_ns)
    passed = _passed.setdefault(key, [])
    if any(masks in ("unread", seen) and set(required) <= read for seen, read in passed):
        return
    check_coco_file(path, masks=masks, required=required, other_categories=True)
    passed.append((masks, frozenset(required)))


def forget_checks() -> None:
    """Let every file be checked again, because a new start begins."""
    _passed.clear()


def read_coco_file(path: Path, masks: str = "unread") -> CocoFile:
    """Read an annotation file as pycocotools does, which mmdet and its metrics read it with.

    Args:
        path: The file.
        masks: See :func:`check_coco_file`.

    Raises:
        DataError: The file is not JSON, or a part or key is missing or of another type.
    """
    check_once(path, masks, ("area",))
    content = json.loads(path.read_bytes())
    return CocoFile(
        path,
        tuple((entry["name"], entry["id"]) for entry in content["categories"]),
        {entry["id"]: entry for entry in content["images"]},
        content.get("annotations", []),
    )


def _reorder(names: Sequence[str]) -> str:
    if len(names) > 20:
        return "name the classes in the file's order"
    return f"set metainfo=dict(classes={tuple(names)!r})"
