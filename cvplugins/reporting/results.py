"""What is made of each type of result, wherever it was computed: a table for the log, a JSON file and figures."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cvplugins import __version__
from cvplugins.files import write_whole
from cvplugins.metrics import (
    ClassificationResult,
    DetectionResult,
    GenerationResult,
    ImageQualityResult,
    SegmentationResult,
    TrackingResult,
)

from .classification import classification_table, draw_classification_figure, draw_confusion_figure, draw_rates_figure
from .detection import (
    detection_table,
    draw_detection_confusion_figure,
    draw_detection_errors_figure,
    draw_detection_figure,
)
from .image_quality import draw_image_quality_figure, generation_table, image_quality_table
from .segmentation import draw_segmentation_figure, segmentation_table
from .tracking import draw_tracking_figure, tracking_table

__all__ = ["REPORTS", "Report", "result_table", "write_results"]


class Report(NamedTuple):
    """How to show a type of result.

    Attributes:
        table: Returns the table for the log.
        figures: What draws the result to paths, by the kind of file.
        fits: Returns whether a kind of figure fits a result; all do if None.
    """

    table: Callable[[Any], str]
    figures: Mapping[str, Callable[..., None]] = {}
    fits: Callable[[Any, str], bool] | None = None


def _fits_task(result: ClassificationResult, kind: str) -> bool:
    """Return whether a figure fits the task: labels that exclude each other are confused, and two have one rate."""
    return (kind, result.task) not in {("confusion", "multilabel"), ("rates", "binary")}


REPORTS: dict[type, Report] = {
    DetectionResult: Report(
        detection_table,
        {
            "figure": draw_detection_figure,
            "errors_figure": draw_detection_errors_figure,
            "confusion_figure": draw_detection_confusion_figure,
        },
    ),
    SegmentationResult: Report(segmentation_table, {"figure": draw_segmentation_figure}),
    ClassificationResult: Report(
        classification_table,
        {"figure": draw_classification_figure, "confusion": draw_confusion_figure, "rates": draw_rates_figure},
        _fits_task,
    ),
    TrackingResult: Report(tracking_table, {"figure": draw_tracking_figure}),
    ImageQualityResult: Report(image_quality_table, {"figure": draw_image_quality_figure}),
    GenerationResult: Report(generation_table),
}


def result_table(result: Any) -> str:
    """Return the table of a result for the log.

    Args:
        result: Of a type in :data:`REPORTS`.
    """
    return _report(result).table(result)


def write_results(
    result: Any, folder: str | os.PathLike[str], name: str, settings: Mapping[str, Any] | None = None
) -> dict[str, Path]:
    """Write ``<name>_results.json`` with the version of this package, and each figure as PNG and SVG.

    Args:
        result: Of a type in :data:`REPORTS`.
        folder: Where to write.
        name: What the names of the files begin with.
        settings: Options that the result does not know.

    Returns:
        The file of each kind; of a figure the PNG.
    """
    report = _report(result)
    known = {"cvplugins": __version__} | ({"settings": dict(settings)} if settings else {})
    written = {"results": Path(folder, f"{name}_results.json")}
    with write_whole(written["results"]) as temporary:
        temporary.write_text(json.dumps(known | result.as_dict()) + "\n")
    for kind, draw in report.figures.items():
        if report.fits is None or report.fits(result, kind):
            written[kind] = Path(folder, f"{name}_{kind}.png")
            draw(result, written[kind], written[kind].with_suffix(".svg"))
    return written


def _report(result: Any) -> Report:
    if type(result) not in REPORTS:
        raise TypeError(
            f"no report for {type(result).__name__}; there are {', '.join(each.__name__ for each in REPORTS)}"
        )
    return REPORTS[type(result)]
