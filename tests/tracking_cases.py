"""Random tracks, and the tracking metrics by loops in float64 that are too slow to be wrong."""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from cvplugins.metrics import TrackedFrame, TrackingMetric

CLASSES = ("car", "person", "never")


def random_frames(seed, sequences=3, length=12, objects=4, whole_pixels=False, special=False):
    """Objects that move, come and go; a tracker that misses, invents and confuses them; two classes."""
    generator = np.random.default_rng(seed)
    frames = []
    for sequence in range(sequences):
        boxes = generator.uniform(0, 30, (objects, 2))
        boxes = np.concatenate([boxes, boxes + generator.uniform(8, 25, (objects, 2))], axis=1)
        labels, names = generator.integers(0, 2, objects), np.arange(objects) * 3 - 4
        for frame in generator.choice(40, length, replace=False):
            boxes = boxes + generator.normal(0, 2, (objects, 4))
            for one in np.flatnonzero(generator.random(objects) < 0.1):
                names[one] = generator.integers(0, 3) if generator.random() < 0.3 else 50 + names.max()
            there, seen = generator.random(objects) < 0.8, generator.random(objects) < 0.8
            found = boxes[seen] + generator.normal(0, 2, (seen.sum(), 4))
            found = np.concatenate([found, generator.uniform(0, 50, (1, 4))])  # some are inside out
            ids, first = np.unique(np.append(names[seen], -9), return_index=True)
            if generator.random() < 0.1:
                ids, first = ids[:0], first[:0]
            truth, found = boxes[there], found[first]
            if whole_pixels:
                truth, found = truth.round(), found.round()
            frames.append(
                TrackedFrame(
                    f"s{sequence}",
                    int(frame),
                    ids=ids,
                    boxes=found,
                    truth_ids=np.arange(objects)[there] + 100,
                    truth_boxes=truth,
                    labels=np.append(labels[seen], 0)[first],
                    truth_labels=labels[there],
                    ignored=generator.random(there.sum()) < 0.2 if special else None,
                    excluded=generator.random(there.sum()) < 0.2 if special else None,
                    seconds=float(generator.uniform(0.01, 0.1)) if sequence else None,
                )
            )
    return frames


def evaluate(frames, classes=CLASSES, **options):
    metric = TrackingMetric(classes, **options)
    for frame in frames:
        metric.update(frame)
    return metric.compute()


def one_class(frames, sequence, label):
    """Return the frames of a sequence, in order, with ``(truth_ids, truth_boxes, ids, boxes, ignored, excluded)``."""
    own = sorted((frame for frame in frames if frame.sequence == sequence), key=lambda frame: frame.frame)
    for frame in own:
        truth, found = frame.truth_labels == label, frame.labels == label
        none = np.zeros(len(truth), bool)
        yield (
            frame.truth_ids[truth].tolist(),
            frame.truth_boxes[truth].tolist(),
            frame.ids[found].tolist(),
            frame.boxes[found].tolist(),
            (none if frame.ignored is None else frame.ignored)[truth].tolist(),
            (none if frame.excluded is None else frame.excluded)[truth].tolist(),
        )


def iou(one, other):
    width = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    height = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    area, other_area = ((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    if min(area, other_area) <= 0:
        return 0.0
    return width * height / (area + other_area - width * height)


def best_matching(score):
    """Return the one-to-one pairs of the greatest total, of all that there are; 0 is no pair."""
    rows, columns = len(score), len(score[0]) if score else 0

    @cache
    def best(row, taken):
        if row == rows:
            return 0.0, ()
        choices = [best(row + 1, taken)]
        for column in range(columns):
            if not taken >> column & 1 and score[row][column] > 0:
                total, pairs = best(row + 1, taken | 1 << column)
                choices.append((total + score[row][column], ((row, column), *pairs)))
        return max(choices, key=lambda choice: choice[0])

    return best(0, 0)[1]


def preprocessed(frames):
    """Return ``(truth_ids, ids, similarity)`` of each frame after MOTChallenge's preprocessing."""
    for truth_ids, truth_boxes, ids, boxes, ignored, excluded in frames:
        table = [[iou(one, other) for other in boxes] for one in truth_boxes]
        near = [[value if value >= 0.5 else 0 for value in row] for row in table]
        pairs = best_matching(near) if any(ignored) else ()
        gone = {column for row, column in pairs if ignored[row]}
        rows = [row for row in range(len(truth_ids)) if not ignored[row] and not excluded[row]]
        columns = [column for column in range(len(ids)) if column not in gone]
        yield (
            [truth_ids[row] for row in rows],
            [ids[column] for column in columns],
            [[table[row][column] for column in columns] for row in rows],
        )


def clear_by_loops(frames, threshold=0.5):
    """CLEAR MOT after Bernardin and Stiefelhagen, as TrackEval does it."""
    counts = dict.fromkeys(("TP", "FP", "FN", "IDSW"), 0)
    total_iou, last, before, there, hits, starts = 0.0, {}, {}, {}, {}, {}
    for truth_ids, ids, table in frames:
        for one in truth_ids:
            there[one] = there.get(one, 0) + 1
        if not truth_ids or not ids:
            counts["FN"] += len(truth_ids)
            counts["FP"] += len(ids)
            continue
        score = [[value * (value >= threshold) for value in row] for row in table]
        for row, one in enumerate(truth_ids):
            if before.get(one) in ids:  # what was matched before outweighs all others
                column = ids.index(before[one])
                score[row][column] += 1000 * (score[row][column] > 0)
        now = {}
        for row, column in best_matching(score):
            one, other = truth_ids[row], ids[column]
            counts["IDSW"] += last.get(one, other) != other
            starts[one] = starts.get(one, 0) + (one not in before)
            hits[one] = hits.get(one, 0) + 1
            last[one] = now[one] = other
            total_iou += table[row][column]
        counts["TP"] += len(now)
        counts["FN"] += len(truth_ids) - len(now)
        counts["FP"] += len(ids) - len(now)
        before = now
    shares = [hits.get(one, 0) / count for one, count in there.items()]
    mostly, hardly = sum(share > 0.8 for share in shares), sum(share < 0.2 for share in shares)
    return {
        **counts,
        "Frag": sum(count - 1 for count in starts.values()),
        "MT": mostly,
        "ML": hardly,
        "PT": len(shares) - mostly - hardly,
        "iou_sum": total_iou,
    }


def identity_by_loops(frames, threshold=0.5):
    """IDTP, IDFP and IDFN after Ristani et al.: the assignment of whole tracks with the most IDTP."""
    frames = list(frames)
    truths = sorted({one for truth_ids, _, _ in frames for one in truth_ids})
    tracks = sorted({one for _, ids, _ in frames for one in ids})
    covered = [[0] * len(tracks) for _ in truths]
    for truth_ids, ids, table in frames:
        for one, row in zip(truth_ids, table, strict=True):
            for other, value in zip(ids, row, strict=True):
                covered[truths.index(one)][tracks.index(other)] += value >= threshold
    idtp = sum(covered[row][column] for row, column in best_matching(covered))
    return {
        "IDTP": idtp,
        "IDFP": sum(len(ids) for _, ids, _ in frames) - idtp,
        "IDFN": sum(len(truth_ids) for truth_ids, _, _ in frames) - idtp,
    }


def hota_by_loops(frames):
    """TP, FP, FN and the sums of IoU and of association at each threshold, after Luiten et al."""
    frames = list(frames)
    lengths, other_lengths, soft = {}, {}, {}
    for truth_ids, ids, table in frames:
        for one in truth_ids:
            lengths[one] = lengths.get(one, 0) + 1
        for other in ids:
            other_lengths[other] = other_lengths.get(other, 0) + 1
        for one, row in zip(truth_ids, table, strict=True):
            for place, other in enumerate(ids):
                if row[place] > 0:
                    union = sum(row) + sum(line[place] for line in table) - row[place]
                    soft[one, other] = soft.get((one, other), 0) + row[place] / union
    matches = []
    for truth_ids, ids, table in frames:
        score = [
            [
                value * soft.get((one, other), 0) / (lengths[one] + other_lengths[other] - soft.get((one, other), 0))
                for other, value in zip(ids, row, strict=True)
            ]
            for one, row in zip(truth_ids, table, strict=True)
        ]
        matches += [(truth_ids[row], ids[column], table[row][column]) for row, column in best_matching(score)]
    found = []
    for alpha in np.arange(0.05, 0.99, 0.05):
        hits = [(one, other, value) for one, other, value in matches if value >= alpha - 2e-16]
        ass = ass_re = ass_pr = 0.0
        for one, other, _ in hits:
            together = sum((one, other) == hit[:2] for hit in hits)
            ass += together / (lengths[one] + other_lengths[other] - together)
            ass_re += together / lengths[one]
            ass_pr += together / other_lengths[other]
        tp = len(hits)
        rest = sum(other_lengths.values()) - tp, sum(lengths.values()) - tp
        found.append((tp, *rest, math.fsum(hit[2] for hit in hits), ass, ass_re, ass_pr))
    return np.array(found).T
