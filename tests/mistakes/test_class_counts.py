"""The number of classes in the heads of mmdet's models against the data's.

Oracles: the configs of mmdet's own zoo, which are right; and mmdet's heads, whose losses count the classes so.
"""

import copy
from pathlib import Path

import pytest
from annotations import check, config, dataset, write_coco, write_devkit

from cvplugins.errors import UserError

pytestmark = pytest.mark.openmmlab

OWN = ("helmet", "vest")
DEVKIT = {"1": [("helmet", (1, 1, 20, 20)), ("vest", (5, 5, 30, 30))]}
LIST = "VOC2007/ImageSets/Main/trainval.txt"


@pytest.fixture
def voc(tmp_path):
    root = write_devkit(tmp_path / "VOCdevkit", DEVKIT)
    return lambda classes=OWN, **more: dataset("VOCDataset", root, LIST, classes, **more)


def head(count, **more):
    return {"type": "Shared2FCBBoxHead", "num_classes": count, **more}


def two_stage(bbox_head, **heads):
    return {"type": "FasterRCNN", "rpn_head": {"type": "RPNHead"}, "roi_head": {"bbox_head": bbox_head, **heads}}


RIGHT = {
    "two stages": two_stage(head(2)),
    "cascade": two_stage([head(2), head(2), head(2)], mask_head={"type": "FCNMaskHead", "num_classes": 2}),
    "proposals of another head": {**two_stage(head(2)), "rpn_head": {"type": "FCOSHead", "num_classes": 1}},
    "masks of no class": two_stage(
        head(2), mask_head={"type": "FCNMaskHead", "num_classes": 80, "class_agnostic": True}
    ),
    "label maps beside boxes": two_stage(head(2), semantic_head={"type": "FusedSemanticHead", "num_classes": 183}),
    "proposals alone": {"type": "RPN", "rpn_head": {"type": "RPNHead", "num_classes": 1}},
    "words instead of classes": {
        "type": "GroundingDINO",
        "language_model": {},
        "bbox_head": {"type": "GroundingDINOHead", "num_classes": 256},
    },
    "one stage": {"type": "RetinaNet", "bbox_head": {"type": "RetinaHead", "num_classes": 2}},
    "masks of queries": {
        "type": "Mask2Former",
        "panoptic_head": {
            "type": "Mask2FormerHead",
            "num_things_classes": 2,
            "num_stuff_classes": 0,
            "loss_cls": {"type": "CrossEntropyLoss", "class_weight": [1.0, 1.0, 0.1]},
        },
    },
    "a teacher": {"type": "SoftTeacher", "detector": two_stage(head(2))},
}
WRONG = {
    "model.roi_head.bbox_head.num_classes is 20": two_stage(head(20)),
    "model.roi_head.bbox_head.num_classes is 80": two_stage({"type": "Shared2FCBBoxHead"}),  # BBoxHead's default
    "model.roi_head.bbox_head.0.num_classes, model.roi_head.bbox_head.2.num_classes are 20": two_stage(
        [head(20), head(2), head(20)]
    ),
    "model.roi_head.mask_head.num_classes is 80": two_stage(head(2), mask_head={"type": "FCNMaskHead"}),
    "model.roi_head.point_head.num_classes is 3": two_stage(head(2), point_head={"type": "X", "num_classes": 3}),
    "model.roi_head.bbox_head.loss_cls.num_classes is 1203": two_stage(head(2, loss_cls={"type": "SeesawLoss"})),
    "model.bbox_head.num_classes is 20": {"type": "RetinaNet", "bbox_head": {"type": "RetinaHead", "num_classes": 20}},
    "model.detector.roi_head.bbox_head.num_classes is 1": {"type": "SoftTeacher", "detector": two_stage(head(1))},
    "model.panoptic_head.num_things_classes is 80": {"type": "MaskFormer", "panoptic_head": {"type": "MaskFormerHead"}},
}


@pytest.mark.parametrize("name", RIGHT)
def test_heads_that_fit(voc, name):
    check(config(voc(), voc(test_mode=True), RIGHT[name]))


@pytest.mark.parametrize("message", WRONG)
def test_heads_that_do_not_fit(voc, message):
    with pytest.raises(UserError) as error:
        check(config(voc(), voc(test_mode=True), WRONG[message]))
    assert str(error.value).startswith(f"{message}, but train_dataloader.dataset (VOCDataset) has 2 classes (helmet, ")
    assert "to 2, or metainfo=dict(classes=...)" in str(error.value)


def test_stuff_of_a_panoptic_head_has_no_boxes(voc):
    wrong = copy.deepcopy(RIGHT["masks of queries"])
    wrong["panoptic_head"]["num_stuff_classes"] = 53
    with pytest.raises(UserError, match=r"num_stuff_classes is 53, but .* has 0 classes without boxes"):
        check(config(voc(), model=wrong))


def test_weights_of_classes(voc):
    wrong = copy.deepcopy(RIGHT["masks of queries"])
    wrong["panoptic_head"]["loss_cls"]["class_weight"] = [1.0] * 80 + [0.1]
    with pytest.raises(UserError, match=r"model.panoptic_head.loss_cls.class_weight has 81 numbers; .* need 3"):
        check(config(voc(), model=wrong))


@pytest.mark.parametrize("wrapper", ["ConcatDataset", "RepeatDataset", "ClassBalancedDataset", "MultiImageMixDataset"])
def test_datasets_in_wrappers(voc, wrapper):
    inner = {"datasets": [voc(), voc()]} if wrapper == "ConcatDataset" else {"dataset": voc()}
    with pytest.raises(UserError, match=r"is 20, but train_dataloader\.dataset\.dataset.* has 2 classes"):
        check(config({"type": wrapper, **inner}, model=two_stage(head(20))))


def test_twenty_classes_and_a_head_of_two(voc):
    with pytest.raises(UserError, match=r"is 2, but .* \(VOCDataset\) has 20 classes; set it to 20"):
        check(config(voc(None), model=two_stage(head(2))))


def test_a_dataset_of_coco_and_of_ones_own_class(tmp_path):
    """Of a class that replaces CocoDataset's loading nothing is known but what it loads itself."""
    from mmdet.datasets import CocoDataset
    from mmdet.registry import DATASETS

    class Reordered(CocoDataset):
        def load_data_list(self):
            return super().load_data_list()[::-1]

    write_coco(tmp_path / "a.json", [(1, "helmet"), (2, "vest")], [(1, 1, (1, 1, 9, 9)), (1, 2, (1, 1, 9, 9))])
    DATASETS.register_module(name="Reordered", module=Reordered, force=True)
    try:
        for kind in ("CocoDataset", "Reordered"):
            train = dataset(kind, tmp_path, "a.json", OWN)
            check(config(train, model=two_stage(head(2))))
            with pytest.raises(UserError, match=rf"is 80, but train_dataloader.dataset \({kind}\) has 2 classes"):
                check(config(train, model=two_stage(head(80))))
    finally:
        DATASETS.module_dict.pop("Reordered")


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("helmet", r"metainfo.classes is the string 'helmet', .* write \('helmet',\), with a comma"),
        ((), r"metainfo.classes is \(\), not a list of class names"),
        (("helmet", 2), r"metainfo.classes\[1\] is 2, not a name"),
        (("helmet", "helmet"), r"metainfo.classes names 'helmet' twice"),
    ],
)
def test_class_names_that_are_none(voc, classes, message):
    with pytest.raises(UserError, match=rf"train_dataloader\.dataset\.{message}"):
        check(config(voc(classes)))


def test_a_string_as_classes_of_label_maps(tmp_path):
    train = dataset("BaseSegDataset", tmp_path, "", "road", data_prefix={"img_path": "a", "seg_map_path": "b"})
    with pytest.raises(UserError, match=r"metainfo\.classes is the string 'road'"):
        check(config(train, default_scope="mmseg"))


def test_a_file_of_class_names_is_read_without_its_blanks(voc, tmp_path):
    """mmengine reads the file of names that a string is, with blanks and empty lines."""
    path = tmp_path / "names.txt"
    path.write_bytes(b"\xef\xbb\xbfhelmet \nvest\t\n\n")
    cfg = config(voc(str(path)), model=two_stage(head(2)))
    check(cfg)
    assert tuple(cfg.train_dataloader.dataset.metainfo.classes) == OWN


def test_the_tool_names_both_numbers(tool, sample):
    """The mistake as a user makes it; nothing but names is read before."""
    names = [
        *(
            f"train_dataloader.dataset.dataset.datasets.{number}.metainfo.classes=('helmet','vest')"
            for number in (0, 1)
        ),
        "val_dataloader.dataset.metainfo.classes=('helmet','vest')",
    ]
    code, _, (error,) = tool("train", "configs/voc_faster_rcnn_sample.py", "--dry-run", "--cfg-options", *names)
    assert code == 2
    assert "model.roi_head.bbox_head.num_classes is 20, but" in error
    assert "has 2 classes (helmet, vest)" in error


ZOO = (
    "atss/atss_r50_fpn_1x_coco.py",
    "bytetrack/bytetrack_yolox_x_8xb4-80e_crowdhuman-mot17halftrain_test-mot17halfval.py",
    "cityscapes/mask-rcnn_r50_fpn_1x_cityscapes.py",
    "crowddet/crowddet-rcnn_r50_fpn_8xb2-30e_crowdhuman.py",
    "deformable_detr/deformable-detr_r50_16xb2-50e_coco.py",
    "dino/dino-4scale_r50_8xb2-12e_coco.py",
    "faster_rcnn/faster-rcnn_r50-caffe_fpn_ms-1x_coco-person-bicycle-car.py",
    "faster_rcnn/faster-rcnn_r50_fpn_fcos-rpn_1x_coco.py",
    "glip/glip_atss_swin-t_a_fpn_dyhead_pretrain_obj365.py",
    "htc/htc_r50_fpn_1x_coco.py",
    "lad/lad_r101-paa-r50_fpn_2xb8_coco_1x.py",
    "lvis/mask-rcnn_r50_fpn_sample1e-3_ms-1x_lvis-v1.py",
    "mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py",
    "mask2former/mask2former_r50_8xb2-lsj-50e_coco.py",
    "misc/d2_retinanet_r50-caffe_fpn_ms-90k_coco.py",
    "panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py",
    "pascal_voc/ssd512_voc0712.py",
    "point_rend/point-rend_r50-caffe_fpn_ms-1x_coco.py",
    "queryinst/queryinst_r50_fpn_1x_coco.py",
    "reid/reid_r50_8xb32-6e_mot17train80_test-mot17val20.py",
    "rpn/rpn_r50_fpn_1x_coco.py",
    "scnet/scnet_r50_fpn_1x_coco.py",
    "seesaw_loss/mask-rcnn_r50_fpn_seesaw-loss_random-ms-2x_lvis-v1.py",
    "soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py",
    "solo/solo_r50_fpn_1x_coco.py",
    "wider_face/retinanet_r50_fpn_1x_widerface.py",
    "yolact/yolact_r50_1xb8-55e_coco.py",
    "yolox/yolox_s_8xb8-300e_coco.py",
)


@pytest.mark.parametrize("name", ZOO)
def test_configs_of_the_zoo_pass(name):
    import mmdet
    from mmengine.config import Config

    from cvplugins.openmmlab.data.class_checks import check_classes

    cfg = Config.fromfile(Path(mmdet.__file__).parent / ".mim" / "configs" / name)
    named = check_classes(cfg, ("train_dataloader", "val_dataloader"))
    assert bool(named) == (not name.startswith("reid/"))
