"""MOTChallenge's files: what is read, what is refused, and TrackEval on the same files."""

import contextlib
import io
import os

import numpy as np
import pytest

from cvplugins.datasets import DataError, mot_challenge_frames, read_mot_tracks
from cvplugins.metrics import TrackingMetric


def write(folder, text, name="gt.txt"):
    path = folder / name
    path.write_text(text)
    return path


def random_files(folder, seed, length=30, objects=7):
    """Ground truth of all classes of MOTChallenge, some zero-marked, and the results of a tracker of pedestrians."""
    generator = np.random.default_rng(seed)
    corner = generator.uniform(0, 60, (objects, 2))
    size, names = generator.uniform(15, 40, (objects, 2)), np.arange(objects) + 1
    classes = np.append([1, 1], generator.choice([1, 1, 2, 3, 6, 7, 8, 12, 13], objects - 2))
    truth, results = [], []
    for frame in range(1, length + 1):
        corner = corner + generator.normal(0, 1.5, (objects, 2))
        names = np.where(generator.random(objects) < 0.05, names + 100, names)
        for one in np.flatnonzero(generator.random(objects) < 0.9):
            row = [
                frame,
                one + 1,
                *corner[one].round(2),
                *size[one].round(2),
                int(generator.random() < 0.8),
                classes[one],
                1,
            ]
            truth.append(",".join(map(str, row)))
        for one in np.flatnonzero(generator.random(objects) < 0.8):
            box = np.concatenate([corner[one], size[one]]) + generator.normal(0, 2, 4)
            results.append(",".join(map(str, [frame, names[one], *box.round(2), 0.9, -1, -1, -1])))
    generator.shuffle(truth)
    generator.shuffle(results)
    (folder / "gt").mkdir()
    (folder / "trackers" / "ours").mkdir(parents=True)
    return (
        write(folder / "gt", "\n".join(truth), "seq.txt"),
        write(folder / "trackers" / "ours", "\n".join(results), "seq.txt"),
        length,
    )


def trackeval_on_files(folder, length, benchmark):
    """TrackEval from the files on: its reader, preprocessing, IoU and metrics."""
    trackeval = pytest.importorskip("trackeval")
    config = {
        "GT_FOLDER": str(folder / "gt"),
        "TRACKERS_FOLDER": str(folder / "trackers"),
        "OUTPUT_FOLDER": str(folder / "out"),
        "TRACKERS_TO_EVAL": ["ours"],
        "TRACKER_SUB_FOLDER": "",
        "BENCHMARK": benchmark,
        "SEQ_INFO": {"seq": length},
        "GT_LOC_FORMAT": "{gt_folder}/{seq}.txt",
        "SKIP_SPLIT_FOL": True,
        "PRINT_CONFIG": False,
    }
    options, found = {"PRINT_CONFIG": False}, {}
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = trackeval.datasets.MotChallenge2DBox(config)
        data = dataset.get_preprocessed_seq_data(dataset.get_raw_seq_data("ours", "seq"), "pedestrian")
        metrics = trackeval.metrics
        for metric in (metrics.CLEAR(options), metrics.Identity(options), metrics.HOTA()):
            found |= metric.eval_sequence(data)
    return found


@pytest.mark.parametrize("benchmark", ["MOT15", "MOT17", "MOT20"])
@pytest.mark.parametrize("seed", range(6))
def test_equals_trackeval_from_the_files_on(tmp_path, seed, benchmark):
    truth, results, length = random_files(tmp_path, seed)
    metric = TrackingMetric(["pedestrian"])
    frames = mot_challenge_frames(
        "seq", read_mot_tracks(truth), read_mot_tracks(results), num_frames=length, benchmark=benchmark
    )
    assert len(frames) == length
    for frame in frames:
        metric.update(frame)
    ours = metric.compute().measures()
    theirs = trackeval_on_files(tmp_path, length, benchmark)
    for name in ("CLR_TP", "CLR_FP", "CLR_FN", "IDSW", "Frag", "MT", "PT", "ML", "IDTP", "IDFP", "IDFN"):
        assert ours[name.removeprefix("CLR_")] == theirs[name], name
    for name in ("MOTA", "MOTP", "IDF1", "HOTA", "DetA", "AssA", "LocA", "AssRe", "DetPr"):
        assert ours[name] == pytest.approx(np.mean(theirs[name]), rel=1e-12), name


def test_columns_that_are_absent_or_unknown(tmp_path):
    text = "\ufeff2,5,10,20,30,40\n\n1 6 1.5 2 3 4 0.25\n1,7,1,2,3,4,0,8,0.5,99\n3,7.0,1,2,-3,0,1,-1,-1\n"
    tracks = read_mot_tracks(write(tmp_path, text))
    assert tracks.line.tolist() == [1, 3, 4, 5]
    assert tracks.frame.tolist() == [2, 1, 1, 3]
    assert tracks.id.tolist() == [5, 6, 7, 7]
    assert tracks.boxes[:2].tolist() == [[10, 20, 40, 60], [1.5, 2, 4.5, 6]]
    assert tracks.confidence.tolist() == [1, 0.25, 0, 1]
    assert tracks.category.tolist() == [1, 1, 8, 1]
    assert tracks.visibility.tolist() == [1, 1, 0.5, 1]


def test_frames_hold_what_counts(tmp_path):
    lines = ["1,1,0,0,9,9,1,1,1", "1,2,0,0,9,9,0,1,1", "1,3,0,0,9,9,1,7,1", "1,4,0,0,9,9,1,3,1", "1,5,0,0,9,9,1,6,1"]
    truth = read_mot_tracks(write(tmp_path, "\n".join(lines)))
    results = read_mot_tracks(write(tmp_path, "3,1,0,0,9,9", "results.txt"))
    frames = mot_challenge_frames("a", truth, results)
    assert [(frame.frame, len(frame.truth_ids), len(frame.ids)) for frame in frames] == [
        (1, 5, 0),
        (2, 0, 0),
        (3, 0, 1),
    ]
    assert frames[0].ignored.tolist() == [False, False, True, False, False]
    assert frames[0].excluded.tolist() == [False, True, True, True, True]
    assert mot_challenge_frames("a", truth, results, benchmark="MOT20")[0].ignored.tolist()[4]
    old = mot_challenge_frames("a", truth, results, benchmark="MOT15")[0]
    assert (old.ignored.any(), old.excluded.tolist()) == (False, [False, True, False, False, False])
    assert len(mot_challenge_frames("a", truth, results, num_frames=10)) == 10


def test_empty_files_are_sequences_without_boxes(tmp_path):
    empty = read_mot_tracks(write(tmp_path, ""))
    assert mot_challenge_frames("a", empty, empty) == []
    assert len(mot_challenge_frames("a", empty, empty, num_frames=3)) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,1,0,0,9", "line 1: 5 columns; expected at least 6: frame, id, x, y, w, h"),
        ("1,1,0,0,9,9\n1,2,0,zero,9,9", "line 2: y is 'zero', which is no number"),
        ("1,1,0,0,nan,9", "line 1: w is nan; expected a finite number"),
        ("1,1.5,0,0,9,9", r"line 1: id is 1\.5; expected a whole number"),
        ("\n0,1,0,0,9,9", "line 2: frame is 0; frames count from 1"),
        ("1,1,0,0,9,9\n999999999,1,0,0,9,9", "line 2: frame is 999999999; expected at most 1,000,000"),
        ("1e300,1,0,0,9,9", "line 1: frame is 1e300; expected at most 1,000,000"),
        ("1,1e300,0,0,9,9", "line 1: id is 1e300; expected at most 9,007,199,254,740,992"),
        ("1,1,1e308,0,1e308,9", "line 1: x is 1e308; expected at most 1,000,000,000"),
        ("1,1,0,0,9,9\n2,1,0,0,9,9\n1,1,5,5,9,9", "line 3: id 1 comes twice in frame 1; first in line 1"),
    ],
)
def test_wrong_lines_are_named(tmp_path, text, message):
    with pytest.raises(DataError, match=rf"gt\.txt, {message}"):
        read_mot_tracks(write(tmp_path, text))


def test_files_that_do_not_fit_are_refused(tmp_path):
    truth = read_mot_tracks(write(tmp_path, "1,1,0,0,9,9\n5,1,0,0,9,9"))
    cars = read_mot_tracks(write(tmp_path, "1,1,0,0,9,9,1,3", "results.txt"))
    with pytest.raises(DataError, match=r"gt\.txt, line 2: frame 5, but the sequence has 4"):
        mot_challenge_frames("a", truth, truth, num_frames=4)
    with pytest.raises(DataError, match=r"results\.txt, line 1: class 3 in the results; only pedestrians"):
        mot_challenge_frames("a", truth, cars)
    with pytest.raises(ValueError, match="benchmark 'MOT18' is none of MOT15, MOT16, MOT17, MOT20"):
        mot_challenge_frames("a", truth, truth, benchmark="MOT18")
    with pytest.raises(DataError, match=r"none\.txt: cannot read the file"):
        read_mot_tracks(tmp_path / "none.txt")
    with pytest.raises(ValueError, match="num_frames is 2000000; expected 0 to 1,000,000"):
        mot_challenge_frames("a", truth, truth, num_frames=2_000_000)
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"binary\.txt: cannot be read"):
        read_mot_tracks(tmp_path / "binary.txt")


def test_numbers_beyond_all_measure(tmp_path):
    """A frame of 999,999,999 would take gigabytes, and an id of 1e300 is no longer a number of its own."""
    for line, message in (
        ("999999999,1,0,0,9,9", "frame is 999999999; expected at most 1,000,000"),
        ("1,1e300,0,0,9,9", "id is 1e300; expected at most 9,007,199,254,740,992"),
        ("1e17,1,0,0,9,9", "frame is 1e17; expected at most 1,000,000"),
    ):
        with pytest.raises(DataError, match=rf"gt\.txt, line 2: {message}"):
            read_mot_tracks(write(tmp_path, f"1,1,0,0,9,9\n{line}"))


def test_a_pipe_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "gt.txt")
    with pytest.raises(DataError, match=r"gt\.txt: cannot read the file, it is a named pipe"):
        read_mot_tracks(tmp_path / "gt.txt")
