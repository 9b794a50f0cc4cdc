"""Write a whole result: everything as JSON, and its figures."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cvplugins import __version__
from cvplugins.files import write_whole
from cvplugins.metrics import ClassificationResult

from .classification import draw_classification_figure, draw_confusion_figure, draw_rates_figure
from .detection import draw_detection_confusion_figure, draw_detection_errors_figure, draw_detection_figure
from .segmentation import draw_segmentation_figure

__all__ = ["DETECTION_FIGURES", "SEGMENTATION_FIGURES", "classification_figures", "write_results"]

Figures = Mapping[str, Callable[..., None]]

DETECTION_FIGURES: Figures = {
    "figure": draw_detection_figure,
    "errors_figure": draw_detection_errors_figure,
    "confusion_figure": draw_detection_confusion_figure,
}
SEGMENTATION_FIGURES: Figures = {"figure": draw_segmentation_figure}


def classification_figures(result: ClassificationResult) -> Figures:
    """Return the figures that fit the task of a classification result."""
    figures: dict[str, Callable[..., None]] = {"figure": draw_classification_figure}
    if result.task != "multilabel":
        figures["confusion"] = draw_confusion_figure
    if result.task != "binary":
        figures["rates"] = draw_rates_figure
    return figures


def write_results(
    result: Any, figures: Figures, path_for: Callable[[str, str], Path], settings: Mapping[str, Any] | None = None
) -> None:
    """Write ``results`` as JSON with the version of this package, and each figure as PNG and SVG.

    Args:
        result: Has ``as_dict()``, everything as plain data.
        figures: What draws the result to paths, by the kind of file.
        path_for: Returns the path of a kind of file and a suffix.
        settings: Options that the result does not know.
    """
    known = {"cvplugins": __version__} | ({"settings": dict(settings)} if settings else {})
    with write_whole(path_for("results", ".json")) as temporary:
        temporary.write_text(json.dumps(known | result.as_dict()) + "\n")
    for kind, draw in figures.items():
        path = path_for(kind, ".png")
        draw(result, path, path.with_suffix(".svg"))
