"""The converted weights in the real models: the same boxes and scores."""

import pytest
import torch

from cvplugins.weights import convert_weights

pytestmark = [pytest.mark.openmmlab, pytest.mark.detectron2]


def same_detectors(root, sample, small, count):
    """A model of mmdet, the one of Detectron2 with its weights, and images."""
    pytest.importorskip("mmdet")
    pytest.importorskip("detectron2")
    from same_detectors import detectron2_model, make_plausible, mmdet_model, sample_images

    images = sample_images(sample, count)
    ours = mmdet_model(root, small)
    make_plausible(ours, images)
    theirs = detectron2_model(root, small)
    converted = convert_weights(ours.state_dict(), source="mmdet", target="detectron2")
    loaded = theirs.load_state_dict(converted, strict=False)
    assert loaded.missing_keys == []
    assert all(name.endswith("num_batches_tracked") for name in loaded.unexpected_keys)
    return ours, theirs, images


@pytest.fixture(scope="module")
def detectors(root, sample):
    return same_detectors(root, sample, small=True, count=6)


@pytest.mark.slow
def test_boxes_and_scores_of_the_voc_config_agree(root, sample):
    # Batch norms with the statistics of one image alone make scores of exactly 1, which are ties.
    ours, theirs, images = same_detectors(root, sample, small=False, count=4)
    assert_boxes_and_scores_agree(ours, theirs, images[:1])


def test_boxes_and_scores_agree(detectors):
    assert_boxes_and_scores_agree(*detectors)


def assert_boxes_and_scores_agree(ours, theirs, images):
    from same_detectors import found_by_detectron2, found_by_mmdet, largest_difference

    found = found_by_mmdet(ours, images)
    assert sum(len(scores) for _, scores, _ in found) >= 50 * len(images)
    assert len(torch.cat([labels for *_, labels in found]).unique()) >= 5
    # 6e-5 on one machine: boxes of 200 pixels in float32 through two implementations of RoIAlign.
    assert largest_difference(found, found_by_detectron2(theirs, images)) < 1e-3


def test_a_checkpoint_goes_through_both_files(detectors, tmp_path):
    """mmdet's file, the tool, and Detectron2's checkpointer."""
    from cvplugins.detectron2 import CvpluginsCheckpointer
    from cvplugins.weights import convert_checkpoint

    ours, theirs, _ = detectors
    torch.save({"meta": {}, "state_dict": ours.state_dict()}, tmp_path / "epoch_1.pth")
    convert_checkpoint(tmp_path / "epoch_1.pth", tmp_path / "there.pth", source="mmdet", target="detectron2")
    expected = {name: value.clone() for name, value in theirs.state_dict().items()}
    with torch.no_grad():
        for each in theirs.parameters():
            each.zero_()
    CvpluginsCheckpointer(theirs).load(str(tmp_path / "there.pth"))
    assert all(torch.equal(value, expected[name]) for name, value in theirs.state_dict().items())


def test_weights_of_the_real_models_go_there_and_back(detectors):
    ours, theirs, _ = detectors
    weights = ours.state_dict()
    there = convert_weights(weights, source="mmdet", target="detectron2")
    back = convert_weights(there, source="detectron2", target="mmdet")
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[name], weights[name]) for name in weights)
    # Detectron2's own names, without the counters that its frozen batch norms lack.
    of_detectron2 = theirs.state_dict()
    returned = convert_weights(of_detectron2, source="detectron2", target="mmdet")
    assert ours.load_state_dict(returned).missing_keys == []
    assert convert_weights(returned, source="mmdet", target="detectron2").keys() == of_detectron2.keys()


@pytest.mark.parametrize(
    "setting",
    [
        dict(RESNETS=dict(STRIDE_IN_1X1=True)),
        dict(PIXEL_MEAN=[103.53, 116.28, 123.675]),
        dict(ROI_BOX_HEAD=dict(POOLER_TYPE="ROIAlign")),
    ],
    ids=["stride", "channels", "pooling"],
)
def test_a_setting_that_is_not_equal_shows(detectors, root, setting):
    """That the comparison can fail: one of the settings unlike docs/weights.md."""
    from same_detectors import detectron2_model, found_by_detectron2, found_by_mmdet, largest_difference

    ours, theirs, images = detectors
    other = detectron2_model(root, True, **setting)
    other.load_state_dict(theirs.state_dict())
    assert largest_difference(found_by_mmdet(ours, images[:1]), found_by_detectron2(other, images[:1])) > 1e-2
