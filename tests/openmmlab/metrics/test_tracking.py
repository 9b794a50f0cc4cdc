"""The tracking metric as mmengine's evaluator calls it, on mmdet's data samples, on one and several ranks."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from helpers import run_ranks
from tracking_cases import CLASSES, evaluate, random_frames

pytestmark = pytest.mark.openmmlab

BOX = [10.0, 10.0, 29.0, 29.0]


def frame_sample(frame, source="gt_instances"):
    """One frame as mmdet's pipeline packs it and its trackers fill it in."""
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    path = f"data/train/{frame.sequence}/img1/{frame.frame:06}.jpg"
    sample = DetDataSample(metainfo=dict(img_path=path, frame_id=frame.frame, ori_video_length=12, video_id=7))
    ignored = np.zeros(len(frame.truth_ids), bool) if frame.ignored is None else frame.ignored
    if source == "instances":
        columns = (frame.truth_ids, frame.truth_boxes, frame.truth_labels, ignored)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        keys = ("instance_id", "bbox", "bbox_label", "ignore_flag")
        sample.set_metainfo(dict(instances=[dict(zip(keys, row, strict=True)) for row in rows]))
        scale = 0.5  # the pipeline resized what it packed as tensors
    else:
        scale = 1.0
    for name, kept in (("gt_instances", ~ignored), ("ignored_instances", ignored)):
        sample.set_field(
            InstanceData(
                bboxes=torch.tensor(scale * frame.truth_boxes[kept]),
                labels=torch.tensor(frame.truth_labels[kept]),
                instances_ids=torch.tensor(frame.truth_ids[kept]),
            ),
            name,
        )
    sample.pred_track_instances = InstanceData(
        bboxes=torch.tensor(frame.boxes),
        labels=torch.tensor(frame.labels),
        scores=torch.ones(len(frame.ids)),
        instances_id=torch.tensor(frame.ids),
    )
    if frame.seconds:
        sample.set_metainfo(dict(seconds=frame.seconds))
    return sample


def track_samples(frames, whole_videos=False, **options):
    from mmdet.structures import TrackDataSample

    samples = []
    videos = {}
    for frame in frames:
        videos.setdefault(frame.sequence if whole_videos else len(videos), []).append(frame_sample(frame, **options))
    for video in videos.values():
        sample = TrackDataSample()
        sample.video_data_samples = video
        samples.append(sample)
    return samples


def evaluate_samples(samples, metric=None, size=1, classes=CLASSES):
    from mmengine.evaluator import Evaluator
    from mmengine.logging import MMLogger
    from mmengine.registry import init_default_scope

    MMLogger.get_instance("test")
    init_default_scope("mmdet")
    evaluator = Evaluator(metric or dict(type="cvplugins.TrackingMetric"))
    evaluator.dataset_meta = dict(classes=classes)
    for sample in samples:
        evaluator.process([sample])
    return evaluator.evaluate(size)


def expected_from(frames, classes=CLASSES):
    return {f"track/{name}": value for name, value in evaluate(frames, classes).scalars().items()}


@pytest.mark.parametrize("whole_videos", [False, True], ids=["frames", "videos"])
@pytest.mark.parametrize("source", ["gt_instances", "instances"])
@pytest.mark.parametrize("special", [False, True], ids=["plain", "ignored"])
def test_values_are_those_of_the_core(whole_videos, source, special):
    frames = [dataclasses.replace(each, excluded=None) for each in random_frames(1, special=special)]
    # The size is the number of videos, as mmengine's loops give it: no frame may be dropped for it.
    found = evaluate_samples(track_samples(frames, whole_videos, source=source), size=3)
    expected = expected_from(frames)
    assert found.keys() == expected.keys()
    # gt_instances and ignored_instances change the order of boxes, and with it the last bits of sums.
    assert list(found.values()) == pytest.approx(list(expected.values()), rel=1e-12)


def on_a_rank(seed):
    from cvplugins.distributed import rank

    frames = random_frames(seed)
    own = (frames[:20] + frames[:3], frames[20:], [])[rank()]  # a frame comes twice, a rank stays idle
    return evaluate_samples(track_samples(own), size=3)


@pytest.mark.distributed
def test_every_rank_has_the_same_bits():
    assert run_ranks(on_a_rank, 3, 4) == [expected_from(random_frames(4))] * 3


def test_padding_that_differs_in_the_last_bits_counts_once():
    frames = random_frames(2)
    padded = [*frames, dataclasses.replace(frames[0], boxes=frames[0].boxes * (1 + 1e-15))]
    assert evaluate_samples(track_samples(padded)) == expected_from(frames)


def test_packed_by_the_pipeline_of_mmdet():
    """PackTrackInputs builds the samples; the tracker's boxes are the ground truth, so all is right."""
    from mmdet.datasets.transforms import PackTrackInputs
    from mmengine.structures import InstanceData

    row = dict(bbox=BOX, bbox_label=0, instance_id=3, ignore_flag=0, mot_conf=1, category_id=1, visibility=1.0)
    marked = {**row, "instance_id": 4, "bbox": [60.0, 60.0, 80.0, 80.0], "mot_conf": 0}
    results = dict(
        img_id=[1, 2],
        img_path=["data/A/img1/1.jpg", "data/A/img1/2.jpg"],
        frame_id=[0, 1],
        video_id=[0, 0],
        ori_video_length=[2, 2],
        instances=[[row, marked], [row]],
        gt_bboxes=[np.float32([BOX]), np.float32([BOX])],
        gt_bboxes_labels=[np.array([0]), np.array([0])],
        gt_instances_ids=[np.array([3]), np.array([3])],
    )
    sample = PackTrackInputs()(results)["data_samples"]
    for frame in sample.video_data_samples:
        frame.pred_track_instances = InstanceData(
            bboxes=torch.tensor([BOX]),
            labels=torch.zeros(1).long(),
            scores=torch.ones(1),
            instances_id=torch.ones(1).long(),
        )
    found = evaluate_samples([sample], classes=("pedestrian",))
    assert (found["track/TP"], found["track/FN"], found["track/HOTA"]) == (2, 0, 1)


def test_distractors_absorb_and_other_classes_are_left_out():
    from cvplugins.metrics import TrackedFrame

    boxes = np.array([BOX, np.add(BOX, 50), np.add(BOX, 100)])
    labels = np.arange(3)
    frames = [TrackedFrame("a", 1, [1, 2, 3], boxes, [1, 2, 3], boxes, np.zeros(3, int), labels)]
    metric = dict(type="cvplugins.TrackingMetric", classes=["car"], distractors=["person"])
    found = evaluate_samples(track_samples(frames), metric)
    assert (found["track/TP"], found["track/FP"], found["track/FN"]) == (1, 1, 0)
    found = evaluate_samples(track_samples(frames), dict(type="cvplugins.TrackingMetric", classes=["car"]))
    assert (found["track/TP"], found["track/FP"], found["track/FN"]) == (1, 2, 0)
    frames = [TrackedFrame("a", 1, [1, 2, 3], boxes, [1, 2, 3], boxes, labels, labels)]
    found = evaluate_samples(track_samples(frames), dict(type="cvplugins.TrackingMetric", classes=["person", "never"]))
    assert (found["track/TP"], found["track/FP"], found["track/mMOTA"]) == (2, 0, 1)


def test_videos_are_named_by_what_tells_them_apart():
    from cvplugins.openmmlab.metrics.tracking import _short_names

    assert _short_names({"d/train/A/img1", "d/train/B/img1"}) == {"d/train/A/img1": "A", "d/train/B/img1": "B"}
    assert _short_names({"d/A", "d/B/A"}) == {"d/A": "A", "d/B/A": "B/A"}
    assert _short_names({"d/A", "d/A/B"}) == {"d/A": "A", "d/A/B": "A/B"}
    assert _short_names({"d/A/img1"}) == {"d/A/img1": "A"}
    assert _short_names({"video 3", "video 4"}) == {"video 3": "video 3", "video 4": "video 4"}
    assert _short_names(set()) == {}


def test_writes_results_and_figures(tmp_path):
    from mmengine.registry import METRICS

    metric = METRICS.build(dict(type="cvplugins.TrackingMetric", out_dir=tmp_path))
    found = evaluate_samples(track_samples(random_frames(1)), metric)
    written = json.loads(metric.written["results"].read_text())
    assert written["combined"]["HOTA"] == found["track/HOTA"]
    assert set(written["per_sequence"]) == {"s0", "s1", "s2"}
    assert written["settings"]["iou_threshold"] == 0.5
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        *("track_figure.png", "track_figure.svg", "track_results.json"),
    ]


def test_no_frame_at_all():
    assert evaluate_samples([]) == expected_from([])


def test_wrong_options_and_samples_are_named():
    from mmengine.registry import METRICS

    with pytest.raises(ValueError, match="class car is in classes and in distractors"):
        METRICS.build(dict(type="cvplugins.TrackingMetric", classes=["car"], distractors=["car"]))
    with pytest.raises(ValueError, match="iou_threshold is 2"):
        METRICS.build(dict(type="cvplugins.TrackingMetric", iou_threshold=2))
    samples = track_samples(random_frames(1)[:1])
    with pytest.raises(ValueError, match="the dataset has no class 'dog'; it has: car, person, never"):
        evaluate_samples(samples, dict(type="cvplugins.TrackingMetric", distractors=["dog"]))
    with pytest.raises(ValueError, match="the dataset names no classes"):
        evaluate_samples(samples, classes=None)
    with pytest.raises(ValueError, match=r"img1/.*jpg: label . is no class; there are 1"):
        evaluate_samples(track_samples(random_frames(1)[1:6]), classes=["car"])
    del samples[0].video_data_samples[0].pred_track_instances
    with pytest.raises(ValueError, match="the data sample has no pred_track_instances"):
        evaluate_samples(samples)
