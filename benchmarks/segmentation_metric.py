"""The confusion matrix of one image against mmseg's IoUMetric, on the same maps in the same run.

OMP_NUM_THREADS=1 python benchmarks/segmentation_metric.py [--classes 150]
"""

import argparse
import statistics
import time

import numpy as np
import torch

from cvplugins.metrics.label_maps import confusion_matrix

SIZE = (512, 683)


def maps(kind, num_classes):
    """Label and prediction: blocks of 32 pixels with shifted edges, or noise, the worst case."""
    generator = np.random.default_rng(0)
    if kind == "noise":
        return generator.integers(0, num_classes, (2, *SIZE))
    coarse = generator.integers(0, num_classes, [-(-side // 32) for side in SIZE])
    label = np.kron(coarse, np.ones((32, 32), int))[: SIZE[0], : SIZE[1]]
    return label, np.roll(label, (3, 2), (0, 1))


def main():
    """Time both in turns; the counts have to be equal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classes", type=int, default=150)
    count = parser.parse_args().classes
    from mmseg.evaluation import IoUMetric

    print(f"{SIZE[0]}x{SIZE[1]}, {count} classes, median of 7, torch {torch.__version__}, NumPy {np.__version__}")
    for kind in ("objects", "noise"):
        for dtype in (torch.uint8, torch.int64):
            label, prediction = (torch.from_numpy(each).to(dtype) for each in maps(kind, count))
            calls = {
                "cvplugins": lambda label=label, prediction=prediction: confusion_matrix(label, prediction, count),
                "mmseg": lambda label=label, prediction=prediction: IoUMetric.intersect_and_union(
                    prediction, label, count, 255
                ),
            }
            seconds = {name: [] for name in calls}
            for _ in range(8):  # the first warms up
                for name, call in calls.items():
                    start = time.perf_counter()
                    found = call()
                    seconds[name].append(time.perf_counter() - start)
                    if name == "cvplugins":
                        table = found
            for ours, theirs in zip((np.diag(table), table.sum(0), table.sum(1)), (found[0], *found[2:]), strict=True):
                np.testing.assert_array_equal(ours, theirs.numpy())
            ms = {name: 1e3 * statistics.median(each[1:]) for name, each in seconds.items()}
            shown = ", ".join(f"{name} {value:.3f} ms" for name, value in ms.items())
            print(f"{kind:<8} {dtype!s:<12} {shown}: {ms['mmseg'] / ms['cvplugins']:.0f} times")


if __name__ == "__main__":
    main()
