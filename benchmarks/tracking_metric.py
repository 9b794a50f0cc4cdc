"""The tracking metric against TrackEval and motmetrics, from boxes in memory to numbers, on the same boxes.

OMP_NUM_THREADS=1 python benchmarks/tracking_metric.py [--frames 600] [--objects 20]

Needs trackeval and motmetrics; each of ours computes everything but where a row says otherwise.
"""

import argparse
import contextlib
import io
import statistics
import time

import numpy as np

from cvplugins.metrics import TrackedFrame, TrackingMetric
from cvplugins.metrics.clear_mot import clear_counts, match_clear
from cvplugins.metrics.track_pairs import track_pairs

if not hasattr(np, "asfarray"):  # motmetrics 1.4 needs it, NumPy 2 has it no more
    np.asfarray = lambda values, dtype=np.float64: np.asarray(values, dtype)


def simulate(num_frames, num_objects, size, seed=0):
    """Walkers in an image, and a tracker that misses 10 %, changes 1 % of ids and invents two boxes a frame."""
    generator = np.random.default_rng(seed)
    extent, size = generator.uniform((40, 100), (100, 250), (num_objects, 2)), np.array(size)
    place, step = generator.uniform(0, size - 250, (num_objects, 2)), generator.normal(0, 4, (num_objects, 2))
    ids, frames = np.arange(num_objects), []
    for _ in range(num_frames):
        place = place + step
        step = np.where((place < 0) | (place + extent > size), -step, step)
        place = np.clip(place, 0, size - extent)
        truth = np.concatenate([place, place + extent], axis=1)
        ids = np.where(generator.random(num_objects) < 0.01, ids + num_objects, ids)
        seen = generator.random(num_objects) > 0.1
        count = generator.poisson(2)
        corner = generator.uniform(0, size - 250, (count, 2))
        false = np.concatenate([corner, corner + generator.uniform((40, 100), (100, 250), (count, 2))], axis=1)
        boxes = np.concatenate([truth[seen] + generator.normal(0, 4, (seen.sum(), 4)), false])
        own = np.concatenate([ids[seen], 10**6 + len(frames) * 100 + np.arange(count)])
        order = generator.permutation(len(own))
        frames.append((np.arange(num_objects), truth, own[order], boxes[order]))
    return frames


def joined(frames):
    """Our state."""
    metric = TrackingMetric(["pedestrian"])
    for number, (truth_ids, truth, ids, boxes) in enumerate(frames):
        metric.update(TrackedFrame("video", number, ids, boxes, truth_ids, truth))
    return metric


def ours(frames):
    """CLEAR MOT, identity and HOTA."""
    return joined(frames).compute().measures()


def ours_clear(frames):
    """CLEAR MOT only, by the functions that the metric calls."""
    listed = list(joined(frames).frames.values())
    pairs = track_pairs(listed, np.zeros(len(listed), np.int64), 1)
    return clear_counts(pairs, match_clear(pairs, 0.5)).sum(0).measures()


def trackeval(names):
    """Return a function that computes some of TrackEval's metrics over its own IoU."""
    import trackeval
    from trackeval.datasets._base_dataset import _BaseDataset

    def measure(frames):
        distinct = [np.unique(np.concatenate([frame[side] for frame in frames])) for side in (0, 2)]
        data = {
            "gt_ids": [np.searchsorted(distinct[0], frame[0]) for frame in frames],
            "tracker_ids": [np.searchsorted(distinct[1], frame[2]) for frame in frames],
            "similarity_scores": [_BaseDataset._calculate_box_ious(frame[1], frame[3], "x0y0x1y1") for frame in frames],
            "num_gt_ids": len(distinct[0]),
            "num_tracker_ids": len(distinct[1]),
            "num_gt_dets": sum(len(frame[0]) for frame in frames),
            "num_tracker_dets": sum(len(frame[2]) for frame in frames),
            "num_timesteps": len(frames),
        }
        found = {}
        with contextlib.redirect_stdout(io.StringIO()):
            for name in names:
                found |= getattr(trackeval.metrics, name)().eval_sequence(data)
        return {name.removeprefix("CLR_"): float(np.mean(value)) for name, value in found.items()}

    return measure


def motmetrics(names):
    """Return a function that computes some of motmetrics' metrics over its own IoU."""
    import motmetrics

    def measure(frames):
        accumulator = motmetrics.MOTAccumulator(auto_id=True)
        for truth_ids, truth, ids, boxes in frames:
            sides = (np.concatenate([side[:, :2], side[:, 2:] - side[:, :2]], axis=1) for side in (truth, boxes))
            accumulator.update(truth_ids, ids, motmetrics.distances.iou_matrix(*sides, max_iou=0.5))
        found = motmetrics.metrics.create().compute(accumulator, metrics=list(names.values()), name="all")
        return {name: float(found[theirs]["all"]) for name, theirs in names.items()}

    return measure


def main():
    """Time all in turns; the counts have to be equal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument("--objects", type=int, default=20)
    options = parser.parse_args()
    import motmetrics as mm
    import scipy
    import trackeval as te

    mota = {"MOTA": "mota", "FP": "num_false_positives", "FN": "num_misses", "IDSW": "num_switches"}
    more = {"MT": "mostly_tracked", "IDF1": "idf1", "Recall": "recall", "Frag": "num_fragmentations"}
    print(
        f"{options.frames} frames, {options.objects} objects, CPU time, median of 7; trackeval {te.__version__}",
        end=", ",
    )
    print(f"motmetrics {mm.__version__}, NumPy {np.__version__}, SciPy {scipy.__version__}")
    for title, size in (("street", (1920, 1080)), ("crowd", (640, 480))):
        frames = simulate(options.frames, options.objects, size)
        calls = {
            "ours, MOTA": ours_clear,
            "ours, everything": ours,
            "TrackEval, MOTA": trackeval(["CLEAR"]),
            "TrackEval, everything": trackeval(["CLEAR", "Identity", "HOTA"]),
            "motmetrics, MOTA": motmetrics(mota),
            "motmetrics, MOTA and IDF1": motmetrics({**mota, **more}),
        }
        seconds = {name: [] for name in calls}
        found = {}
        for _ in range(8):  # the first warms up
            for name, call in calls.items():
                start = time.process_time()
                found[name] = call(frames)
                seconds[name].append(time.process_time() - start)
        expected = found["ours, everything"]
        for name in ("ours, MOTA", "TrackEval, MOTA", "TrackEval, everything"):
            for key in set(expected) & set(found[name]):
                np.testing.assert_allclose(found[name][key], expected[key], rtol=1e-12, err_msg=key)
        ms = {name: 1e3 * statistics.median(each[1:]) for name, each in seconds.items()}
        for name, value in ms.items():
            theirs = {key: found[name][key] for key in mota}
            if title == "street":  # in a crowd motmetrics' other rule may give another number of switches
                assert theirs == {key: expected[key] for key in mota}, name
            kind = "ours, MOTA" if name.endswith("MOTA") else "ours, everything"
            note = "" if name.startswith("ours") else f"{value / ms[kind]:>6.1f} times {kind}"
            print(f"{title:<8}{name:<28}{value:>8.1f} ms  {note:<32}IDSW {theirs['IDSW']:.0f}")


if __name__ == "__main__":
    main()
