"""MOTChallenge: its text files of true and tracked boxes, and the frames that a tracking metric takes."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cvplugins.errors import DataError

from .text_files import read_text

if TYPE_CHECKING:
    from cvplugins.metrics.tracked_frame import TrackedFrame

if TYPE_CHECKING:
    from cvplugins.metrics.tracked_frame import TrackedFrame

__all__ = ["MOTTracks", "mot_challenge_frames", "read_mot_tracks"]

PEDESTRIAN = 1
# person_on_vehicle, static_person, distractor, reflection
DISTRACTORS = (2, 7, 8, 12)
NON_MOT_VEHICLE = 6  # a distractor in MOT20 only
BENCHMARKS = ("MOT15", "MOT16", "MOT17", "MOT20")
# Every frame of a sequence takes memory, also an empty one: this many are nine hours of video.
MAX_FRAMES = 1_000_000
# Whole numbers beyond are not exact in float64; coordinates beyond are no pixels.
LARGEST = {"id": 2.0**53, "class": 2.0**53, "frame": MAX_FRAMES, "x": 1e9, "y": 1e9, "w": 1e9, "h": 1e9}
COLUMNS = ("frame", "id", "x", "y", "w", "h", "conf", "class", "visibility")


@dataclass(frozen=True)
class MOTTracks:
    """The rows of one file, in its order.

    Attributes:
        path: The file.
        line: Line of each row, from 1, ``(N,)``.
        frame: From 1, ``(N,)``.
        id: Track, ``(N,)``.
        boxes: ``xyxy`` in pixels, float64, ``(N, 4)``.
        confidence: Score of a result; 0 marks ground truth that does not count, ``(N,)``; 1 where absent.
        category: Class number of the benchmark, 1 for pedestrians, ``(N,)``; 1 where absent or -1.
        visibility: Share of the object that is seen, ``(N,)``; 1 where absent or -1.
    """

    path: Path
    line: NDArray[np.int64]
    frame: NDArray[np.int64]
    id: NDArray[np.int64]
    boxes: NDArray[np.float64]
    confidence: NDArray[np.float64]
    category: NDArray[np.int64]
    visibility: NDArray[np.float64]


def read_mot_tracks(path: str | os.PathLike[str]) -> MOTTracks:
    """Read ground truth or results: ``frame,id,x,y,w,h[,conf[,class[,visibility]]]``, one box a line.

    Blank lines, and columns after the ninth, are passed over. Boxes of no or negative size are kept; they match
    nothing.

    Args:
        path: A text file, columns separated by commas or blanks.

    Raises:
        DataError: The file is missing or no text, a line has fewer than six columns, a value is no finite number or
            beyond a limit, frame, id or class is no whole number, a frame is below 1 or above 1,000,000, or an id comes
            twice in a frame; the message names file and line.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "gt.txt"
        >>> _ = path.write_text("1,7,10,20,30,40,1,1,0.5")
        >>> read_mot_tracks(path).boxes
        array([[10., 20., 40., 60.]])
    """
    path = Path(path)
    text = read_text(path)
    lines, rows = [], []
    for number, content in enumerate(text.splitlines(), start=1):
        if content.strip():
            lines.append(number)
            rows.append(_row(path, number, content))
    values = np.array(rows, np.float64).reshape(-1, len(COLUMNS))
    corner, size = values[:, 2:4], values[:, 4:6]
    tracks = MOTTracks(
        path=path,
        line=np.array(lines, np.int64),
        frame=values[:, 0].astype(np.int64),
        id=values[:, 1].astype(np.int64),
        boxes=np.concatenate([corner, corner + size], axis=1),
        confidence=values[:, 6],
        category=values[:, 7].astype(np.int64),
        visibility=values[:, 8],
    )
    _check_unique(tracks)
    return tracks


def mot_challenge_frames(
    sequence: str,
    truth: MOTTracks,
    results: MOTTracks,
    *,
    num_frames: int | None = None,
    benchmark: str = "MOT17",
) -> list[TrackedFrame]:
    """Return the frames of a sequence as MOTChallenge evaluates them, for a metric of the one class pedestrian.

    Tracked boxes on distractors (people on vehicles, static people, reflections ...) do not count; other true boxes
    that are no pedestrians or have confidence 0 do not count either, but absorb nothing. MOT15 has no classes: there
    only the confidence decides.

    Args:
        sequence: Name.
        truth: Rows of ``gt.txt``.
        results: Rows of the tracker's file, all taken for pedestrians.
        num_frames: Length of the sequence, at most 1,000,000; up to the last row if None.
        benchmark: ``"MOT15"``, ``"MOT16"``, ``"MOT17"`` or ``"MOT20"``.

    Raises:
        ValueError: The benchmark is none of these, or ``num_frames`` is out of range.
        DataError: A frame is beyond ``num_frames``, or a result is of another class than pedestrian; the message
            names file and line.
    """
    from cvplugins.metrics.tracked_frame import TrackedFrame  # brings torch, which readers do without

    if benchmark not in BENCHMARKS:
        raise ValueError(f"benchmark {benchmark!r} is none of {', '.join(BENCHMARKS)}")
    if num_frames is not None and not 0 <= num_frames <= MAX_FRAMES:
        raise ValueError(f"num_frames is {num_frames}; expected 0 to {MAX_FRAMES:,}")
    last = max((int(rows.frame.max()) for rows in (truth, results) if len(rows.frame)), default=0)
    length = last if num_frames is None else num_frames
    for rows in (truth, results):
        _refuse(rows, rows.frame > length, f"frame {{frame}}, but the sequence has {length}")
    _refuse(results, results.category != PEDESTRIAN, "class {category} in the results; only pedestrians (1) count")
    distractors = (*DISTRACTORS, *([NON_MOT_VEHICLE] if benchmark == "MOT20" else []))
    ignored = np.isin(truth.category, distractors)
    excluded = (truth.confidence == 0) | (truth.category != PEDESTRIAN)
    if benchmark == "MOT15":
        ignored, excluded = np.zeros_like(ignored), truth.confidence == 0
    true_rows, found_rows = _by_frame(truth.frame, length), _by_frame(results.frame, length)
    none = np.zeros(0, np.int64)
    empty: dict[str, Any] = dict.fromkeys(("ids", "truth_ids"), none) | dict.fromkeys(
        ("boxes", "truth_boxes"), np.zeros((0, 4))
    )
    return [
        TrackedFrame(
            sequence,
            place + 1,
            ids=results.id[found],
            boxes=results.boxes[found],
            truth_ids=truth.id[true],
            truth_boxes=truth.boxes[true],
            ignored=ignored[true],
            excluded=excluded[true],
        )
        if len(true) or len(found)
        else TrackedFrame(sequence, place + 1, **empty)  # frames without boxes share their arrays
        for place, (true, found) in enumerate(zip(true_rows, found_rows, strict=True))
    ]


def _row(path: Path, number: int, content: str) -> list[float]:
    cells = content.replace(",", " ").split()[: len(COLUMNS)]
    if len(cells) < 6:
        raise DataError(f"{path}, line {number}: {len(cells)} columns; expected at least 6: {', '.join(COLUMNS[:6])}")
    values = []
    for name, cell in zip(COLUMNS, cells, strict=False):
        try:
            value = float(cell)
        except ValueError:
            raise DataError(f"{path}, line {number}: {name} is '{cell}', which is no number") from None
        whole = name in ("frame", "id", "class")
        if not math.isfinite(value) or (whole and not value.is_integer()):
            kind = "a whole" if whole else "a finite"
            raise DataError(f"{path}, line {number}: {name} is {cell}; expected {kind} number")
        if abs(value) > LARGEST.get(name, math.inf):
            raise DataError(f"{path}, line {number}: {name} is {cell}; expected at most {LARGEST[name]:,.0f}")
        values.append(value)
    if values[0] < 1:
        raise DataError(f"{path}, line {number}: frame is {cells[0]}; frames count from 1")
    values += [1.0] * (len(COLUMNS) - len(values))
    # Results, and the ground truth of MOT15, fill up with -1.
    return values[:7] + [1.0 if value == -1 else value for value in values[7:]]


def _check_unique(tracks: MOTTracks) -> None:
    order = np.lexsort((tracks.line, tracks.id, tracks.frame))
    same = (np.diff(tracks.frame[order]) == 0) & (np.diff(tracks.id[order]) == 0)
    if same.any():
        place = int(np.flatnonzero(same)[0])
        first, second = order[place : place + 2]
        raise DataError(
            f"{tracks.path}, line {tracks.line[second]}: id {tracks.id[second]} comes twice in frame "
            f"{tracks.frame[second]}; first in line {tracks.line[first]}"
        )


def _refuse(rows: MOTTracks, wrong: NDArray[np.bool_], message: str) -> None:
    if wrong.any():
        place = int(np.flatnonzero(wrong)[0])
        values: dict[str, Any] = {"frame": rows.frame[place], "category": rows.category[place]}
        raise DataError(f"{rows.path}, line {rows.line[place]}: {message.format(**values)}")


def _by_frame(frame: NDArray[np.int64], length: int) -> list[NDArray[np.int64]]:
    """Return the rows of each frame from 1 to ``length``, in their order."""
    order = np.argsort(frame, kind="stable")
    return np.split(order, np.searchsorted(frame[order], np.arange(2, length + 1))) if length else []
