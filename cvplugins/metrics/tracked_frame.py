"""What a tracker says about one frame of a video, and what is there."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["TrackedFrame"]

# Compared with a dtype a dtype is ten times as fast as with a type, and this is done for every frame.
FLOATS = (np.dtype(np.float64), np.dtype(np.float32))
INTEGERS = np.dtype(np.int64)


@dataclass(frozen=True, slots=True)
class TrackedFrame:
    """What was tracked in one frame and what is there.

    Lists are converted; float32 and float64 boxes stay what they are.

    Args:
        sequence: Number or name of the video.
        frame: Number of the frame in it; the order of frames is the order of these numbers.
        ids: Track of each box that the tracker gave, integers, ``(D,)``; once a frame and class.
        boxes: Tracked boxes in pixels, ``xyxy``, ``(D, 4)``.
        truth_ids: Track of each true box, integers, ``(G,)``; once a frame and class.
        truth_boxes: Ground truth in pixels, ``xyxy``, ``(G, 4)``.
        labels: Class index of each tracked box, ``(D,)``; all 0 if None.
        truth_labels: Class index of each true box, ``(G,)``; all 0 if None.
        ignored: True boxes that absorb the tracked box matched to them, so that neither counts, ``(G,)``: distractors
            and ignore regions. Matched as MOTChallenge does: all boxes of a frame and class for the most IoU, at
            least 0.5. None if there are none.
        excluded: True boxes that do not count but absorb nothing, ``(G,)``: MOTChallenge's zero-marked ones and its
            classes that are neither evaluated nor distractors. They take part in the matching for ``ignored``.
        seconds: Time that the tracker took for the frame; None if unknown.

    Raises:
        ValueError: Shapes do not fit each other, an id is given twice or is no integer, or a number is not finite; the
            message names sequence and frame.

    Example:
        >>> TrackedFrame("street", 7, [1, 1], [[0, 0, 9, 9], [5, 5, 9, 9]], [], [])
        Traceback (most recent call last):
        ValueError: sequence street, frame 7: ids holds 1 twice; a track has at most one box of a class in a frame
    """

    sequence: int | str
    frame: int
    ids: NDArray[Any]
    boxes: NDArray[Any]
    truth_ids: NDArray[Any]
    truth_boxes: NDArray[Any]
    labels: NDArray[Any] | None = None
    truth_labels: NDArray[Any] | None = None
    ignored: NDArray[Any] | None = None
    excluded: NDArray[Any] | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        self._convert("", self.ids, self.labels, self.boxes)
        self._convert("truth_", self.truth_ids, self.truth_labels, self.truth_boxes)
        for name in ("ignored", "excluded"):
            value = getattr(self, name)
            if value is not None:
                self._set(name, np.asarray(value, bool), (len(self.truth_ids),))
        if self.seconds is not None and not (math.isfinite(self.seconds) and self.seconds > 0):
            raise self._error(f"seconds is {self.seconds}; expected a positive number, or None if unknown")

    def same_as(self, other: TrackedFrame) -> bool:
        """Return whether both hold the same boxes; how long they took does not matter."""
        names = (field.name for field in fields(self) if field.name != "seconds")
        return all(np.array_equal(getattr(self, name), getattr(other, name)) for name in names)

    def _convert(self, side: str, ids: ArrayLike, labels: ArrayLike | None, boxes: ArrayLike) -> None:
        box = np.asarray(boxes)
        if box.dtype not in FLOATS:
            box = box.astype(FLOATS[0])
        count = len(box)
        box = self._set(f"{side}boxes", box, (count, 4))
        id_ = self._set(f"{side}ids", self._integers(f"{side}ids", ids), (count,))
        if np.count_nonzero(np.isfinite(box)) != box.size:
            wrong = id_[~np.isfinite(box).all(axis=1)][0]
            raise self._error(f"{side}boxes holds a number that is not finite, for id {wrong}")
        keys: list[Any] = id_.tolist()
        if labels is not None:
            label = self._set(f"{side}labels", self._integers(f"{side}labels", labels), (count,))
            keys = list(zip(keys, label.tolist(), strict=True))
        if len(set(keys)) != count:
            twice = next(place for place, key in enumerate(keys) if key in keys[:place])
            raise self._error(f"{side}ids holds {id_[twice]} twice; a track has at most one box of a class in a frame")

    def _integers(self, name: str, values: ArrayLike) -> NDArray[Any]:
        value = np.asarray(values)
        if value.dtype == INTEGERS:
            return value
        if value.size and value.dtype.kind not in "iu":
            raise self._error(f"{name} holds {value.dtype}; expected integers")
        return value.astype(INTEGERS)

    def _set(self, name: str, value: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        if value.shape != shape:
            if value.size or 0 not in shape:
                raise self._error(f"{name} has shape {value.shape}, expected {shape}")
            value = value.reshape(shape)  # an empty list has no second dimension
        if getattr(self, name) is not value:
            object.__setattr__(self, name, value)
        return value

    def _error(self, message: str) -> ValueError:
        return ValueError(f"sequence {self.sequence}, frame {self.frame}: {message}")
