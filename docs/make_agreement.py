"""Write docs/agreement.md: the same losses and metrics by OpenMMLab, Detectron2 and cvplugins.

With --check only say whether it is up to date. Needs mmdet, mmseg and detectron2.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from agreement_losses import CASES, LossCase, compare
from agreement_metrics import Comparison, metric_comparisons
from generated import write_or_check

FOLDER = Path(__file__).parent
PAGE = FOLDER / "agreement.md"
INTRODUCTION = FOLDER / "agreement_introduction.md"
HEADER = "<!-- Written by docs/make_agreement.py from agreement_introduction.md and what the frameworks compute. -->"
# Less is rounding, or the small number that keeps a division from 0.
NEGLIGIBLE = 1e-6


def page(comparisons: Sequence[Comparison] | None = None) -> str:
    """Return the whole page.

    Args:
        comparisons: Of the metrics; computed if None.
    """
    comparisons = metric_comparisons() if comparisons is None else comparisons
    parts = [
        HEADER,
        INTRODUCTION.read_text(encoding="utf-8").strip(),
        "## Losses",
        "In float64, as a mean; the largest differences between any two. Below 0.000001 they are called 0: each adds "
        "its own small number to what divides.",
        _table(
            ("loss", "OpenMMLab", "Detectron2", "ours", "value differs by", "gradient differs by", "why"),
            [_loss_row(case) for case in CASES],
        ),
        "## Metrics",
        "In per cent. Detections near the objects of the sample's test images, some of them doubled, mislabelled or "
        "beside any object, and some that cover exactly half of one; label maps of 8 classes.",
        _table(
            ("number", "OpenMMLab", "ours", "Detectron2", "ours", "why the two differ"),
            [_metric_row(each) for each in comparisons],
        ),
        "OpenMMLab: mmdet's `VOCMetric` and `CocoMetric`, mmseg's `IoUMetric`; ours beside it through "
        "`cvplugins.VOCDetectionMetric`, `DetectionMetric` and `SegmentationMetric`. Detectron2: "
        "`PascalVOCDetectionEvaluator`, `COCOEvaluator` and `SemSegEvaluator`; ours beside it through "
        "`CvpluginsDetectionEvaluator` and `CvpluginsSegmentationEvaluator`. In brackets the rule.",
    ]
    return "\n\n".join(parts) + "\n"


def _loss_row(case: LossCase) -> tuple[str, ...]:
    values, of_value, of_gradient = compare(case)
    return (
        case.name,
        *(_named(getattr(case, framework), values.get(framework)) for framework in ("openmmlab", "detectron2")),
        f"{values['here']:.4f}",
        _difference(of_value),
        _difference(of_gradient),
        case.differs,
    )


def _named(theirs: tuple[str, object] | None, value: float | None) -> str:
    return "-" if theirs is None else f"{value:.4f} ({theirs[0]})"


def _difference(value: float) -> str:
    return "0" if value < NEGLIGIBLE else f"{value:.1g}"


def _metric_row(each: Comparison) -> tuple[str, ...]:
    decimals = 2 if each.decimals is None else each.decimals
    return (
        each.number,
        "-" if each.openmmlab is None else f"{each.openmmlab:.{decimals}f}",
        "-" if each.as_openmmlab is None else f"{each.as_openmmlab:.2f} (`{each.rules[0]}`)",
        f"{each.detectron2:.2f}",
        f"{each.as_detectron2:.2f} (`{each.rules[1]}`)",
        each.differs,
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows))


def main() -> int:
    """Write or check the page; return the exit code."""
    return write_or_check(PAGE, page, "make_agreement.py", __doc__)


if __name__ == "__main__":
    sys.exit(main())
