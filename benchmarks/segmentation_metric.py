"""The segmentation metric against its peers, on the same maps in the same run; what is compared has to be equal.

OMP_NUM_THREADS=1 python benchmarks/segmentation_metric.py [--classes 150] [--images 500]
"""

import argparse
import contextlib
import statistics
import tempfile
import time

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from cvplugins.metrics import SegmentationMetric
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


def medians(calls, repeats=7):
    """Return milliseconds and the last value of each call, called in turns after one round to warm up."""
    seconds, values = {name: [] for name in calls}, {}
    for _ in range(repeats + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            values[name] = call()
            seconds[name].append(time.perf_counter() - start)
    return {name: 1e3 * statistics.median(each[1:]) for name, each in seconds.items()}, values


def counters(label, prediction, count):
    """Return the calls that count pixels, by name; those whose package is missing are left out."""
    from mmseg.evaluation import IoUMetric

    def bincount():
        valid = label != 255
        keys = label[valid].long() * count + prediction[valid]
        return torch.bincount(keys, minlength=count**2).reshape(count, count)

    calls = {
        "cvplugins": lambda: confusion_matrix(label, prediction, count),
        "mmseg": lambda: IoUMetric.intersect_and_union(prediction, label, count, 255),
        "mask and torch.bincount": bincount,
    }
    with contextlib.suppress(ImportError):
        from torchmetrics.functional.classification import multiclass_confusion_matrix

        calls["torchmetrics"] = lambda: multiclass_confusion_matrix(
            prediction, label, count, ignore_index=255, validate_args=False
        )
    if label.dtype == torch.uint8:
        import cv2

        images, ranges = [label.numpy(), prediction.numpy()], [0, 256, 0, 256]
        calls["OpenCV calcHist"] = lambda: cv2.calcHist(images, [0, 1], None, [256, 256], ranges)[:count, :count]
    return calls


def race_counts(count):
    """Time the confusion matrix of one image."""
    for kind in ("objects", "noise"):
        for dtype in (torch.uint8, torch.int64):
            label, prediction = (torch.from_numpy(each).to(dtype) for each in maps(kind, count))
            ms, found = medians(counters(label, prediction, count))
            table = found.pop("cvplugins")
            right, _, predicted, labelled = found.pop("mmseg")
            for ours, theirs in ((table.diagonal(), right), (table.sum(0), predicted), (table.sum(1), labelled)):
                np.testing.assert_array_equal(ours, theirs.numpy())
            for theirs in found.values():
                np.testing.assert_array_equal(table, theirs)
            show(f"{kind}, {str(dtype)[6:]}", ms)


def show(name, ms):
    """Print milliseconds, and how many times ours the others take."""
    own = ms["cvplugins"]
    others = ", ".join(f"{key} {value:.2f} ({value / own:.0f}x)" for key, value in ms.items() if key != "cvplugins")
    print(f"{name:<26} cvplugins {own:.3f} ms; {others}", flush=True)


def measure_boundaries(count):
    """Time one image with and without boundary measures; there is no peer that does all classes at once."""
    label, prediction = (each.astype(np.uint8) for each in maps("objects", count))
    names = [str(index) for index in range(count)]
    plain, full = (SegmentationMetric(names, boundary=boundary) for boundary in (False, True))
    calls = {"without": lambda: plain.count(0, label, prediction), "with": lambda: full.count(0, label, prediction)}
    ms, found = medians(calls)
    np.testing.assert_array_equal(found["without"], found["with"][: len(found["without"])])
    print(f"objects, an image: without boundary measures {ms['without']:.1f} ms, with them {ms['with']:.1f} ms")
    large = [np.kron(each, np.ones((6, 6), np.uint8)) for each in (label, prediction)]
    start = time.perf_counter()
    full.count(0, *large)
    print(f"objects, {large[0].shape}: with boundary measures {time.perf_counter() - start:.1f} s")


def exchange(rank, folder, count, num_images):
    """Time, on one of two ranks, the sum of the state against mmengine's gather of what mmseg keeps of each image."""
    from mmengine.dist import collect_results

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    generator = torch.Generator().manual_seed(rank)
    images = torch.randint(0, 1000, (num_images // 2, 4, count), generator=generator).float()
    results = [tuple(area.clone() for area in image) for image in images]  # a view would be sent with all it is from
    state = torch.zeros(1 + count**2, dtype=torch.int64)
    state[: 4 * count] = images.sum(0).long().flatten()

    def reduce():
        summed = state.clone()
        dist.all_reduce(summed)
        return summed

    def gather():
        dist.barrier()
        gathered = collect_results(results, num_images, "cpu", tmpdir=f"{folder}/results")
        dist.barrier()
        return gathered

    ms, found = medians({"cvplugins": reduce, "mmengine's collect_results": gather})
    if rank == 0:
        theirs = torch.stack([torch.stack(image) for image in found["mmengine's collect_results"]]).sum(0)
        np.testing.assert_array_equal(found["cvplugins"][: 4 * count], theirs.long().flatten())
        show(f"two ranks, {num_images} images", ms)
    dist.barrier()


def main():
    """Run every row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classes", type=int, default=150)
    parser.add_argument("--images", type=int, default=500)
    options = parser.parse_args()
    packages = {"torch": torch.__version__, "NumPy": np.__version__}
    for name in ("mmseg", "torchmetrics", "cv2"):
        with contextlib.suppress(ImportError):
            packages[name] = __import__(name).__version__
    versions = ", ".join(f"{name} {version}" for name, version in packages.items())
    print(f"{SIZE[0]}x{SIZE[1]}, {options.classes} classes, median of 7; {versions}")
    race_counts(options.classes)
    measure_boundaries(options.classes)
    for num_images in (options.images, 4 * options.images):
        with tempfile.TemporaryDirectory() as folder:
            mp.spawn(exchange, (folder, options.classes, num_images), nprocs=2)


if __name__ == "__main__":
    main()
