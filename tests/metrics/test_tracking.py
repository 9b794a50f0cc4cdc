"""The tracking metric against loops, TrackEval and motmetrics, on random and on nasty input."""

import contextlib
import dataclasses
import io
import json
import pickle

import numpy as np
import pytest
from helpers import run_ranks
from tracking_cases import (
    CLASSES,
    clear_by_loops,
    evaluate,
    hota_by_loops,
    identity_by_loops,
    iou,
    one_class,
    preprocessed,
    random_frames,
)

from cvplugins.metrics import TrackedFrame, TrackingMetric
from cvplugins.metrics.assignment import assign
from cvplugins.metrics.track_pairs import number

BOX, FAR = [10.0, 10.0, 29.0, 29.0], [60.0, 60.0, 80.0, 80.0]
NAMES = {"TP": "tp", "FP": "fp", "FN": "fn", "IDSW": "idsw", "Frag": "frag", "MT": "mt", "PT": "pt", "ML": "ml"}


def frame(number=1, ids=(), boxes=(), truth_ids=(), truth_boxes=(), sequence="a", **options):
    return TrackedFrame(sequence, number, ids, boxes, truth_ids, truth_boxes, **options)


@pytest.mark.parametrize("special", [False, True], ids=["plain", "ignored"])
@pytest.mark.parametrize("seed", range(15))
def test_counts_equal_loops(seed, special):
    frames = random_frames(seed, special=special)
    result = evaluate(frames)
    for row, sequence in enumerate(result.sequences):
        for label in range(len(CLASSES)):
            own = list(preprocessed(one_class(frames, sequence, label)))
            expected = clear_by_loops(own)
            found = {name: getattr(result.clear, field)[row, label] for name, field in NAMES.items()}
            assert found == {name: expected[name] for name in NAMES}
            np.testing.assert_allclose(result.clear.iou_sum[row, label], expected["iou_sum"], rtol=1e-12)
            counts = dataclasses.astuple(result.identity[row, label])
            assert counts == tuple(identity_by_loops(own)[name] for name in ("IDTP", "IDFP", "IDFN"))
            np.testing.assert_allclose(dataclasses.astuple(result.hota[row, label]), hota_by_loops(own), rtol=1e-12)


def test_measures_are_those_of_the_sums():
    frames = random_frames(3)
    result = evaluate(frames)
    clears = [
        clear_by_loops(preprocessed(one_class(frames, sequence, label)))
        for sequence in result.sequences
        for label in range(2)
    ]
    total = {name: sum(each[name] for each in clears) for name in clears[0]}
    measures = result.measures()
    errors = total["FP"] + total["FN"] + total["IDSW"]
    assert measures["MOTA"] == pytest.approx(1 - errors / (total["TP"] + total["FN"]), rel=1e-12)
    assert measures["MOTP"] == pytest.approx(total["iou_sum"] / total["TP"], rel=1e-12)
    hota = sum(
        hota_by_loops(preprocessed(one_class(frames, sequence, label)))
        for sequence in result.sequences
        for label in range(2)
    )
    tp, fp, fn, _, ass, _, _ = hota
    curve = np.sqrt(tp / (tp + fp + fn) * ass / np.maximum(tp, 1))
    assert measures["HOTA"] == pytest.approx(curve.mean(), rel=1e-12)
    timed = [each.seconds for each in frames if each.seconds is not None]
    assert measures["FPS"] == pytest.approx(len(timed) / sum(timed))
    assert np.isnan(result.measures("s0")["FPS"])


def trackeval_results(frames, sequence, label, threshold=0.5):
    """TrackEval's own metrics over TrackEval's own IoU."""
    trackeval = pytest.importorskip("trackeval")
    from trackeval.datasets._base_dataset import _BaseDataset

    own = list(one_class(frames, sequence, label))
    names, tracks = ({one: place for place, one in enumerate(sorted({o for f in own for o in f[k]}))} for k in (0, 2))
    data = {
        "gt_ids": [np.array([names[one] for one in each[0]], int) for each in own],
        "tracker_ids": [np.array([tracks[one] for one in each[2]], int) for each in own],
        "similarity_scores": [
            _BaseDataset._calculate_box_ious(*(np.array(each[k]).reshape(-1, 4) for k in (1, 3)), "x0y0x1y1")
            for each in own
        ],
        "num_gt_ids": len(names),
        "num_tracker_ids": len(tracks),
        "num_gt_dets": sum(len(each[0]) for each in own),
        "num_tracker_dets": sum(len(each[2]) for each in own),
        "num_timesteps": len(own),
    }
    options = {"THRESHOLD": threshold, "PRINT_CONFIG": False}
    with contextlib.redirect_stdout(io.StringIO()):
        metrics = [trackeval.metrics.CLEAR(options), trackeval.metrics.Identity(options), trackeval.metrics.HOTA()]
        return [metric.eval_sequence(data) for metric in metrics], metrics


FIELDS = {"TP": "CLR_TP", "FP": "CLR_FP", "FN": "CLR_FN", "Recall": "CLR_Re", "Precision": "CLR_Pr"}


def assert_equals_trackeval(ours, theirs):
    """Counts are equal; shares within 1e-12; what is undefined here is a constant there."""
    for name, value in ours.items():
        if name != "FPS" and not np.isnan(value):
            np.testing.assert_allclose(value, np.mean(theirs[FIELDS.get(name, name)]), rtol=1e-12, atol=1e-12)
    counts = [name for name in ours if name in (*NAMES, "IDTP", "IDFP", "IDFN")]
    assert len(counts) == 11
    assert [ours[name] for name in counts] == [theirs[FIELDS.get(name, name)] for name in counts]


@pytest.mark.parametrize("whole_pixels", [False, True], ids=["any", "ties"])
@pytest.mark.parametrize("threshold", [0.5, 0.3])
@pytest.mark.parametrize("seed", range(10))
def test_equals_trackeval(seed, threshold, whole_pixels):
    frames = random_frames(seed, length=25, objects=9, whole_pixels=whole_pixels)
    result = evaluate(frames, iou_threshold=threshold)
    for label, name in enumerate(CLASSES[:2]):
        sequences = {}
        for sequence in result.sequences:
            sequences[sequence], metrics = trackeval_results(frames, sequence, label, threshold)
            theirs = {key: value for part in sequences[sequence] for key, value in part.items()}
            assert_equals_trackeval(result.measures(sequence, name), theirs)
        combined = {}
        for place, metric in enumerate(metrics):
            combined |= metric.combine_sequences({key: each[place] for key, each in sequences.items()})
        assert_equals_trackeval(result.measures(label=name), combined)


def test_equal_iou_falls_as_in_trackeval():
    """Twins: each true box has two tracked ones that are equal; the choice decides what is an identity switch."""
    generator = np.random.default_rng(0)
    frames = []
    for place in range(30):
        truth = np.array([BOX, FAR, np.add(BOX, 5)])
        found = np.repeat(truth, 2, axis=0)
        order = generator.permutation(6)
        labels = dict(labels=np.zeros(6, int), truth_labels=np.zeros(3, int))
        frames.append(frame(place, generator.permutation(6), found[order], [1, 2, 3], truth, **labels))
    (clear, identity, _), _ = trackeval_results(frames, "a", 0)
    result = evaluate(frames, ["car"])
    ours = result.measures()
    assert ours["IDSW"] == clear["IDSW"] > 0
    assert ours["IDTP"] == identity["IDTP"]


def test_equals_motmetrics(monkeypatch):
    """Where every frame has one possible matching, both rules agree; MOTP is a distance there."""
    if not hasattr(np, "asfarray"):  # motmetrics 1.4 needs it, NumPy 2 has it no more
        monkeypatch.setattr(np, "asfarray", lambda values, dtype=np.float64: np.asarray(values, dtype), raising=False)
    motmetrics = pytest.importorskip("motmetrics")
    frames = random_frames(1, sequences=1, length=40, objects=3)
    frames = [dataclasses.replace(each, labels=None, truth_labels=None) for each in frames]
    frames.sort(key=lambda each: each.frame)
    accumulator = motmetrics.MOTAccumulator(auto_id=True)
    for each in frames:
        table = np.array([[iou(one, other) for other in each.boxes] for one in each.truth_boxes])
        distance = np.where(table >= 0.5, 1 - table, np.nan).reshape(len(each.truth_ids), len(each.ids))
        accumulator.update(each.truth_ids, each.ids, distance)
    names = {"MOTA": "mota", "IDSW": "num_switches", "FP": "num_false_positives", "FN": "num_misses", "IDF1": "idf1"}
    names |= {"Recall": "recall", "Precision": "precision", "IDP": "idp", "IDR": "idr", "ML": "mostly_lost"}
    theirs = motmetrics.metrics.create().compute(accumulator, metrics=[*names.values(), "motp"], name="all")
    ours = evaluate(frames, ["car"]).measures()
    for name, theirs_name in names.items():
        assert ours[name] == pytest.approx(theirs[theirs_name]["all"], abs=1e-12), name
    assert ours["MOTP"] == pytest.approx(1 - theirs["motp"]["all"], abs=1e-12)


def test_hand_calculation():
    """Track 1 is followed by 5, lost, followed by 6; track 2 is never found; one false alarm."""
    result = evaluate(
        [
            frame(1, [5], [BOX], [1], [BOX], seconds=0.5),
            frame(2, [], [], [1, 2], [BOX, FAR], seconds=0.5),
            frame(3, [6, 7], [BOX, [100, 100, 110, 110]], [1, 2], [BOX, FAR], seconds=0.25),
            frame(4, [6], [BOX], [1], [BOX]),
        ],
        ["car"],
    )
    measures = result.measures()
    assert {name: measures[name] for name in NAMES} == {
        **{"TP": 3, "FP": 1, "FN": 3, "IDSW": 1, "MT": 0, "PT": 1, "ML": 1},
        "Frag": 0,  # frame 2 has no tracked box and so, as in TrackEval, interrupts nothing
    }
    assert measures["MOTA"] == pytest.approx((3 - 1 - 1) / 6)
    assert measures["MOTP"] == 1
    assert (measures["IDTP"], measures["IDFP"], measures["IDFN"]) == (2, 2, 4)
    assert measures["FPS"] == pytest.approx(3 / 1.25)
    # Matches: one of track 5, whose union with track 1 has 4 boxes; two of 6: 2 / (4 + 2 - 2) each.
    assert measures["AssA"] == pytest.approx((1 / 4 + 2 * 2 / 4) / 3)
    assert measures["DetA"] == pytest.approx(3 / 7)
    assert measures["HOTA"] == pytest.approx(np.sqrt(measures["AssA"] * measures["DetA"]))


def test_a_match_is_kept_while_it_overlaps_enough():
    """In frame 2 the other track lies better, but the first one still overlaps by 0.5 and stays."""
    shifted = [10.0, 10.0, 29.0, 20.0]
    frames = [frame(1, [5], [BOX], [1], [BOX]), frame(2, [5, 6], [shifted, BOX], [1], [BOX])]
    assert iou(shifted, BOX) > 0.5
    assert evaluate(frames, ["car"]).measures()["IDSW"] == 0
    assert evaluate(frames, ["car"], iou_threshold=0.6).measures()["IDSW"] == 1


def test_ignored_boxes_absorb_what_is_matched_to_them():
    plain = evaluate([frame(1, [5], [BOX], [1], [BOX])], ["car"])
    absorbed = evaluate([frame(1, [5, 6], [BOX, FAR], [1, 2], [BOX, FAR], ignored=[False, True])], ["car"])
    assert absorbed.as_dict() == plain.as_dict()
    twice = [frame(1, [5, 6, 7], [BOX, FAR, np.add(FAR, 1)], [1, 2], [BOX, FAR], ignored=[False, True])]
    assert evaluate(twice, ["car"]).measures()["FP"] == 1  # an ignored box absorbs one tracked box
    excluded = [frame(1, [5, 6], [BOX, FAR], [1, 2], [BOX, FAR], excluded=[False, True])]
    assert evaluate(excluded, ["car"]).measures()["FP"] == 1
    # The excluded box competes for the tracked one, and wins it from the distractor.
    both = [frame(1, [6], [FAR], [2, 3], [FAR, np.add(FAR, 1)], excluded=[True, False], ignored=[False, True])]
    assert evaluate(both, ["car"]).measures()["FP"] == 1


def on_a_rank(seed):
    from cvplugins.distributed import gather_objects, rank

    frames = random_frames(seed)
    metric = TrackingMetric(CLASSES)
    if rank() < 2:  # the third rank is idle
        for each in frames[rank() :: 2] + frames[:2]:
            metric.update(each)
    whole = TrackingMetric(CLASSES)
    for part in gather_objects(metric):
        whole.merge(part)
    return whole.compute().as_dict()


@pytest.mark.distributed
def test_ranks_give_the_same_bits():
    expected = evaluate(random_frames(5)).as_dict()
    assert run_ranks(on_a_rank, 3, 5) == [expected] * 3


def test_merging_in_any_split_and_order_gives_the_same_bits():
    frames = random_frames(7, special=True)
    expected = evaluate(frames).as_dict()
    generator = np.random.default_rng(1)
    for parts in (1, 2, 3, 7):
        shuffled = [frames[index] for index in generator.permutation(len(frames))]
        metrics = [TrackingMetric(CLASSES) for _ in range(parts + 1)]  # the last one stays idle
        for index, each in enumerate(shuffled + shuffled[:3]):  # some frames come twice
            metrics[index % parts].update(each)
        metrics = pickle.loads(pickle.dumps(metrics))  # as ranks exchange them
        whole = TrackingMetric(CLASSES)
        for part in reversed(metrics):
            whole.merge(part)
        assert whole.compute().as_dict() == expected


@pytest.mark.parametrize(
    ("frames", "scalars"),
    [
        ([], {}),
        ([frame()], {}),
        ([frame(1, [5], [BOX])], {"HOTA": 0, "FP": 1, "IDF1": 0, "Precision": 0, "DetA": 0, "LocA": 1}),
        ([frame(1, [], [], [1], [BOX])], {"HOTA": 0, "MOTA": 0, "FN": 1, "ML": 1, "MLR": 1, "IDF1": 0}),
        ([frame(1, [5], [FAR], [1], [BOX])], {"HOTA": 0, "MOTA": -1, "IDR": 0}),
        ([frame(1, [5], [[29, 29, 10, 10]], [1], [BOX])], {"MOTA": -1}),  # inside out
        ([frame(1, [5], [[5, 5, 5, 5]], [1], [[5, 5, 5, 5]])], {"MOTA": -1}),  # no area
        ([frame(1, [-5], [BOX], [2**62], [BOX]), frame(-3, [2**62], [BOX], [-1], [BOX])], {"MOTA": 1, "HOTA": 1}),
        ([frame(2, [5], [BOX], [1], [BOX], sequence=7), frame(2, [5], [FAR], [1], [FAR])], {"MOTA": 1, "IDTP": 2}),
    ],
    ids=["no_frame", "empty", "no_truth", "no_track", "apart", "inverted", "point", "large_ids", "names"],
)
def test_nasty_input(frames, scalars):
    result = evaluate(frames, ["car"])
    found = result.scalars()
    assert {name: found[name] for name in scalars} == scalars
    assert ("MOTA" in found) == any(len(each.truth_ids) for each in frames)
    assert not any(np.isnan(value) for value in found.values())
    json.dumps(result.as_dict(), allow_nan=False)


def test_frames_of_many_sizes_share_tables(monkeypatch):
    """Crowded and empty frames in one sequence, in one table or in many, give what each frame gives alone."""
    generator = np.random.default_rng(0)
    frames = []
    for place, (true, found) in enumerate([(1, 200), (200, 1), (0, 5), (3, 0), (65, 64), (2, 2), (1, 1)]):
        boxes = [
            np.concatenate([corner, corner + 20], axis=1)
            for corner in (generator.uniform(0, 100, (count, 2)) for count in (true, found))
        ]
        frames.append(frame(place, range(found), boxes[1], range(true), boxes[0]))
    expected = evaluate(frames, ["car"])
    monkeypatch.setattr("cvplugins.metrics.track_pairs.CELLS_AT_ONCE", 3)
    assert evaluate(frames, ["car"]).as_dict() == expected.as_dict()


def test_scalars_per_class():
    result = evaluate(random_frames(2))
    scalars = result.scalars()
    assert {"HOTA", "MOTA/car", "IDF1/person", "mHOTA"} <= set(scalars)
    assert "MOTA/never" not in scalars
    means = [scalars["HOTA/car"], scalars["HOTA/person"]]
    assert scalars["mHOTA"] == pytest.approx(np.mean(means))
    assert set(evaluate([frame(1, [5], [BOX], [1], [BOX])], ["car"]).scalars()) >= {"HOTA", "MOTA"}


def test_timeline_tells_who_was_matched_when():
    line = evaluate([frame(3, [9], [BOX], [1, 2], [BOX, FAR]), frame(1, [8], [FAR], [2], [FAR])], ["car"]).timeline
    assert line.frame.tolist() == [1, 3, 3]
    assert line.truth_id.tolist() == [2, 1, 2]
    assert line.matched.tolist() == [True, True, False]
    assert line.id[line.matched].tolist() == [8, 9]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(ids=[1], boxes=[BOX, BOX]), r"ids has shape \(1,\), expected \(2,\)"),
        (dict(ids=[1], boxes=[[1, 2, 3]]), r"boxes has shape \(1, 3\), expected \(1, 4\)"),
        (dict(truth_ids=[1, 1], truth_boxes=[BOX, FAR]), "truth_ids holds 1 twice"),
        (dict(ids=[4], boxes=[[0, 0, np.nan, 1]]), "boxes holds a number that is not finite, for id 4"),
        (dict(ids=[4], boxes=[[0, 0, np.inf, 1]]), "boxes holds a number that is not finite"),
        (dict(ids=[1.5], boxes=[BOX]), "ids holds float64; expected integers"),
        (dict(ids=[1], boxes=[BOX], labels=[0, 0]), r"labels has shape \(2,\), expected \(1,\)"),
        (dict(ids=[1], boxes=[BOX], labels=[2]), "labels holds 2; there are 2 classes, from 0"),
        (dict(truth_ids=[1], truth_boxes=[BOX], truth_labels=[-1]), "truth_labels holds -1; there are 2 classes"),
        (dict(truth_ids=[1], truth_boxes=[BOX], ignored=[0, 1]), r"ignored has shape \(2,\)"),
        (dict(seconds=0), "seconds is 0; expected a positive number"),
    ],
)
def test_wrong_input_is_named_with_sequence_and_frame(wrong, message):
    with pytest.raises(ValueError, match=f"sequence a, frame 3: {message}"):
        evaluate([frame(3, **wrong)], ["car", "dog"])


def test_one_id_in_two_classes_is_two_tracks():
    frames = [frame(1, [1, 1], [BOX, FAR], [1, 1], [BOX, FAR], labels=[0, 1], truth_labels=[0, 1])]
    assert evaluate(frames, ["car", "dog"]).measures()["MOTA"] == 1


def test_huge_boxes_are_finite():
    huge = [[-1e100, -1e100, 1e100, 1e100]]
    assert evaluate([frame(1, [1], np.array(huge), [1], [BOX])], ["car"]).measures()["FP"] == 1


def test_a_frame_counts_once():
    metric = TrackingMetric(["car"])
    for _ in range(2):
        metric.update(frame(1, [5], [BOX], [1], [BOX], seconds=0.1))
    assert metric.compute().measures()["TP"] == 1
    with pytest.raises(ValueError, match="sequence a, frame 1 was added twice with different boxes"):
        metric.update(frame(1, [5], [FAR], [1], [BOX]))


def test_wrong_options_and_names_are_refused():
    with pytest.raises(ValueError, match="at least one"):
        TrackingMetric([])
    with pytest.raises(ValueError, match=r"iou_threshold is 0"):
        TrackingMetric(["car"], iou_threshold=0)
    with pytest.raises(ValueError, match="different classes or thresholds"):
        TrackingMetric(["car"]).merge(TrackingMetric(["dog"]))
    result = evaluate([frame(1, [5], [BOX], [1], [BOX])], ["car"])
    with pytest.raises(ValueError, match="there is no sequence 'b'; there are: a"):
        result.measures("b")
    with pytest.raises(ValueError, match="there is no class 'dog'; there are: car"):
        result.measures(label="dog")


@pytest.mark.parametrize("seed", range(30))
def test_assignment_equals_scipy(seed):
    from scipy.optimize import linear_sum_assignment

    generator = np.random.default_rng(seed)
    table = generator.random(generator.integers(1, 9, 2)) * (generator.random() > generator.random((1, 1)))
    table *= generator.random(table.shape) < generator.random()
    if seed % 3 == 0:
        table = (3 * table).round()
    row, column = np.nonzero(table)
    chosen = assign(row, column, table[row, column])
    assert len(set(row[chosen])) == len(set(column[chosen])) == len(chosen)
    best = table[linear_sum_assignment(table, maximize=True)].sum()
    assert table[row, column][chosen].sum() == pytest.approx(best, abs=1e-12)


def test_numbers_of_distinct_values():
    for values in ([5, 3, 5], [5, 10**15, 3], []):
        place, count = number(np.array(values, np.int64))
        distinct = sorted(set(values))
        assert (count, place.tolist()) == (len(distinct), [distinct.index(value) for value in values])
