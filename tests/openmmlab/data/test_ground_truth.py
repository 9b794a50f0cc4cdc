"""Ground truth brought to the input's pixels; the oracles are hand-made shapes that scale by whole numbers."""

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.openmmlab

META = dict(img_path="a.jpg", ori_shape=(4, 6), img_shape=(8, 18), scale_factor=(3.0, 2.0))


def detection_sample(**meta):
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData, PixelData

    sample = DetDataSample(metainfo={**META, **meta})
    mask = np.zeros((1, 4, 6), np.uint8)
    mask[:, 1:3, 2:5] = 1
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[2.0, 1.0, 5.0, 3.0]]), labels=torch.tensor([7]), masks=BitmapMasks(mask, 4, 6)
    )
    sample.ignored_instances = InstanceData(bboxes=torch.tensor([[0.0, 0.0, 1.0, 1.0]]), labels=torch.tensor([7]))
    sample.gt_sem_seg = PixelData(sem_seg=torch.from_numpy(mask).long())
    return sample


def test_boxes_masks_and_labels_are_scaled_and_padded_in_a_copy():
    from cvplugins.openmmlab.data.ground_truth import fit_to_input

    sample = detection_sample()
    fitted = fit_to_input(sample, (10, 20))
    assert fitted.gt_instances.bboxes.tolist() == [[6, 2, 15, 6]]
    assert fitted.ignored_instances.bboxes.tolist() == [[0, 0, 3, 2]]
    expected = torch.zeros(10, 20, dtype=torch.long)
    expected[2:6, 6:15] = 1
    assert fitted.gt_instances.masks.masks[0].tolist() == expected.tolist()
    expected[8:], expected[:, 18:] = 255, 255
    assert fitted.gt_sem_seg.sem_seg[0].tolist() == expected.tolist()
    assert fitted.gt_sem_seg.sem_seg.dtype == torch.long
    assert fitted.metainfo["batch_input_shape"] == fitted.metainfo["pad_shape"] == (10, 20)
    assert fitted.gt_instances.labels.tolist() == [7]
    assert sample.gt_instances.bboxes.tolist() == [[2, 1, 5, 3]]  # metrics still see the original
    assert sample.gt_instances.masks.masks.shape == (1, 4, 6)
    assert sample.gt_sem_seg.shape == (4, 6)
    assert "pad_shape" not in sample.metainfo


def test_box_types_are_scaled_in_a_copy():
    from mmdet.structures.bbox import HorizontalBoxes

    from cvplugins.openmmlab.data.ground_truth import fit_to_input

    sample = detection_sample()
    sample.gt_instances.bboxes = HorizontalBoxes(sample.gt_instances.bboxes)
    assert fit_to_input(sample, (10, 20)).gt_instances.bboxes.tensor.tolist() == [[6, 2, 15, 6]]
    assert sample.gt_instances.bboxes.tensor.tolist() == [[2, 1, 5, 3]]


def test_resized_ground_truth_is_only_padded():
    from cvplugins.openmmlab.data.ground_truth import fit_to_input

    fitted = fit_to_input(detection_sample(), (8, 8), resized=True, ignore_index=0)
    assert fitted.gt_instances.bboxes.tolist() == [[2, 1, 5, 3]]
    assert fitted.gt_instances.masks.masks.sum() == fitted.gt_sem_seg.sem_seg.sum() == 6
    assert fitted.gt_sem_seg.shape == (8, 8)


def test_without_resize_there_is_no_scale():
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    from cvplugins.openmmlab.data.ground_truth import fit_to_input

    label = torch.arange(6).reshape(1, 2, 3)
    sample = SegDataSample(gt_sem_seg=PixelData(data=label))
    assert torch.equal(fit_to_input(sample, (2, 3)).gt_sem_seg.data, label)


def test_padding_at_the_left_is_refused():
    from cvplugins.openmmlab.data.ground_truth import fit_to_input

    with pytest.raises(ValueError, match=r"a.jpg: the pipeline pads at the top and the left \(border="):
        fit_to_input(detection_sample(border=[1, 9, 1, 19]), (10, 20))


@pytest.mark.parametrize(
    ("steps", "resized"),
    [
        (["LoadImageFromFile", "Resize", "LoadAnnotations", "PackDetInputs"], False),
        (["LoadImageFromFile", "LoadAnnotations", "Resize", "PackDetInputs"], True),
        (["LoadImageFromFile", "LoadAnnotations", "PackDetInputs"], False),
        (["LoadImageFromFile", "Resize", "PackDetInputs"], False),
    ],
)
def test_the_pipeline_says_in_which_pixels_annotations_arrive(steps, resized):
    from types import SimpleNamespace

    from cvplugins.openmmlab.data.ground_truth import resizes_annotations

    pipeline = SimpleNamespace(transforms=[type(step, (), {})() for step in steps])
    plain = SimpleNamespace(pipeline=pipeline)
    assert resizes_annotations(plain) is resized
    assert resizes_annotations(SimpleNamespace(datasets=[SimpleNamespace(dataset=plain)])) is resized
    assert not resizes_annotations([])


def test_empty():
    from mmengine.structures import InstanceData, PixelData
    from mmseg.structures import SegDataSample

    from cvplugins.openmmlab.data.ground_truth import is_empty

    sample = detection_sample()
    assert not is_empty(sample)
    sample.gt_instances = InstanceData(bboxes=torch.zeros(0, 4))
    assert is_empty(sample)
    label = torch.full((1, 2, 3), 255)
    assert is_empty(SegDataSample(gt_sem_seg=PixelData(data=label)))
    assert not is_empty(SegDataSample(gt_sem_seg=PixelData(data=label)), ignore_index=0)
