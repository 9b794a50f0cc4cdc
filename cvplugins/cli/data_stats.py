"""Count what a data set holds, and write config lines that follow from it.

Examples:
  cvplugins data stats data/VOCdevkit
  cvplugins data stats data/VOCdevkit --json stats.json --figure stats.png
  cvplugins data stats data/rooms --classes wall floor --config-lines mmseg
  cvplugins data stats data/coco/annotations/train.json --config-lines detectron2 --scale 1333 800

The config lines are made of the splits for training together. --weights inverse: 1 / n, mean 1; effective: the
effective number of samples with --beta (Cui et al. 2019), of images for label maps; median: the median frequency over
a class's.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvplugins.errors import UserError

from .data_check import add_data_arguments, data_of

if TYPE_CHECKING:
    from cvplugins.datasets.statistics import SplitContent

__all__ = ["add_arguments", "run"]

ADAPTERS = {"mmdet": "openmmlab", "mmseg": "openmmlab", "detectron2": "detectron2"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of statistics."""
    parser.add_argument("data", nargs="+", metavar="ROOT", help="data; several JSONs for COCO")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all numbers there")
    parser.add_argument("--figure", metavar="FILE", type=Path, help="draw a page for each split: stats.png, stats.pdf")
    parser.add_argument("--min-size", type=float, default=32, metavar="PIXELS", help="count smaller boxes; default: 32")
    parser.add_argument("--config-lines", choices=sorted(ADAPTERS), help="print lines for a config of this framework")
    parser.add_argument("--weights", choices=["inverse", "effective", "median"], default="inverse")
    parser.add_argument("--beta", type=float, default=0.999, help="of the effective number; default: 0.999")
    parser.add_argument(
        "--scale", nargs=2, type=int, metavar="SIDE", help="long and short side of the model's images, for anchors"
    )
    add_data_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Count, print and write."""
    _check(arguments)
    from cvplugins.datasets.statistics import merge_contents, read_content, summarize_content
    from cvplugins.reporting.data_statistics import data_statistics_table, draw_data_statistics

    splits = data_of(arguments)
    contents = [read_content(each, arguments.classes, arguments.reduce_zero_label) for each in splits]
    found = [summarize_content(each, arguments.min_size) for each in contents]
    printed = [data_statistics_table(each) for each in found]
    trained = merge_contents(_trained(contents), contents)
    suggestions = _suggestions(trained, arguments)
    if arguments.config_lines:
        printed.append(_config_lines(trained, suggestions, arguments))
    if arguments.json is not None:
        from cvplugins.files import write_whole

        content = {"splits": [each.as_json() for each in found], "suggestions": suggestions}
        with write_whole(arguments.json) as temporary:
            temporary.write_text(json.dumps(content, indent=2), encoding="utf-8")
    if arguments.figure is not None:
        for number, each in enumerate(found):
            draw_data_statistics(each, _figure_path(arguments.figure, number, [each.name for each in found]))
    sys.stdout.write("\n\n".join(printed) + "\n")
    return 0


def _check(arguments: argparse.Namespace) -> None:
    if not 0 <= arguments.beta < 1:
        raise UserError(f"--beta {arguments.beta}: expected a number of at least 0 and below 1")
    if arguments.scale is not None and min(arguments.scale) < 1:
        raise UserError(f"--scale {' '.join(map(str, arguments.scale))}: expected two numbers of pixels")
    if arguments.figure is not None and arguments.figure.suffix not in (".png", ".pdf", ".svg"):
        raise UserError(f"--figure {arguments.figure}: the name must end in .png, .pdf or .svg")
    for option, path in (("--json", arguments.json), ("--figure", arguments.figure)):
        if path is not None and not path.absolute().parent.is_dir():
            raise UserError(f"{option} {path}: the folder {path.absolute().parent} does not exist")


def _trained(contents: list[SplitContent]) -> list[SplitContent]:
    from cvplugins.datasets.layouts import is_held_out

    return [each for each in contents if not is_held_out(each.name)] or contents


def _figure_path(path: Path, number: int, names: list[str]) -> Path:
    if len(names) == 1:
        return path
    return path.with_stem(f"{path.stem}_{''.join(c if c.isalnum() else '_' for c in names[number])}")


def _suggestions(content: SplitContent, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return weights of all three kinds, the threshold for repeated images, and anchors."""
    import numpy as np

    from cvplugins.datasets.statistics import (
        effective_number_weights,
        fit_anchors,
        image_repeat_factors,
        inverse_frequency_weights,
        median_frequency_weights,
        suggested_threshold,
    )
    from cvplugins.datasets.statistics.anchors import resized_sizes

    counts, totals, samples = content.counts, content.counts_where_present, content.samples
    threshold = suggested_threshold(content.presence)
    repeats = image_repeat_factors(content.presence, threshold)
    scale = None if arguments.scale is None else tuple(arguments.scale)
    anchors = fit_anchors(resized_sizes(content.boxes, content.sizes[content.image], scale))
    return {
        "split": content.name,
        "classes": list(content.classes),
        "weights": {
            "inverse": inverse_frequency_weights(counts).tolist(),
            "effective": effective_number_weights(samples, arguments.beta).tolist(),
            "median": median_frequency_weights(counts, totals).tolist(),
        },
        "repeat_threshold": threshold,
        "images_an_epoch": {"fractional": float(repeats.sum()), "rounded_up": int(np.ceil(repeats).sum())},
        "anchors": None if anchors is None else vars(anchors),
    }


def _config_lines(content: SplitContent, suggestions: dict[str, Any], arguments: argparse.Namespace) -> str:
    from cvplugins.datasets.statistics import AnchorFit

    name, is_label_maps = arguments.config_lines, content.pixels is not None
    if not content.classes:
        raise UserError("--config-lines: the data holds no class")
    if is_label_maps == (name == "mmdet") and name != "detectron2":
        kind = "label maps" if is_label_maps else "boxes"
        raise UserError(f"--config-lines {name}: the data is {kind}; choose {'mmseg' if is_label_maps else 'mmdet'}")
    lines = importlib.import_module(f"cvplugins.{ADAPTERS[name]}.data.config_lines")
    weights = suggestions["weights"][arguments.weights]
    head = [f"# {arguments.weights} weights of {len(weights)} classes, from {content.name}:"]
    head += [f"# {', '.join(content.classes)}"]
    if arguments.classes is None:
        head.append("# Their order has to be the config's: --classes names it.")
    if is_label_maps:
        return "\n".join([*head, lines.segmentation_lines(weights)])
    anchors = None if suggestions["anchors"] is None else AnchorFit(**suggestions["anchors"])
    if anchors is not None:
        head.append(
            f"# Anchors: mean IoU {anchors.mean_iou:.3f}, recall at 0.5 {anchors.recall:.3f}; "
            f"the usual ones: {anchors.usual_mean_iou:.3f}, {anchors.usual_recall:.3f}"
        )
        clusters = ", ".join(f"({width:.0f}, {height:.0f})" for width, height in anchors.clusters)
        head.append(f"# Clusters of sizes, for heads that name sizes: {clusters}")
    return "\n".join([*head, lines.detection_lines(weights, suggestions["repeat_threshold"], anchors)])
