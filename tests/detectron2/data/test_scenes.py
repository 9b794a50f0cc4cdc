"""ADE20K in the catalog as it is downloaded, against the converted copy that Detectron2 and Mask2Former need."""

import os

import numpy as np
import pytest
import torch
from PIL import Image
from scenes import first_image, label_map, small_scenes

pytestmark = pytest.mark.detectron2

VAL, CONVERTED = "cvplugins_ade20k_val", "converted_scenes"


def registered(root, **data):
    """Register the scenes; return the config."""
    from detectron2.config import get_cfg

    from cvplugins.detectron2 import add_cvplugins_config
    from cvplugins.detectron2.data.ade20k import register_ade20k

    cfg = get_cfg()
    add_cvplugins_config(cfg)
    cfg.CVPLUGINS.DATA.update(ROOT=str(root), **data)
    cfg.MODEL.META_ARCHITECTURE = "SemanticSegmentor"
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 150
    register_ade20k(cfg)
    return cfg


@pytest.fixture
def folder(scenes, tmp_path):
    folder = small_scenes(scenes, tmp_path / "ADEChallengeData2016")
    spoil(folder, half_unlabelled)
    return folder


def spoil(folder, pixels):
    path = label_map(first_image(folder, "validation"))
    Image.fromarray(pixels(np.array(Image.open(path)))).save(path)
    return path


def half_unlabelled(label):
    label[:, : label.shape[1] // 2] = 0
    return label


@pytest.fixture
def converted(folder):
    """The same labels by the arithmetic of datasets/prepare_ade20k_sem_seg.py, as a dataset of their own."""
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from detectron2.data.datasets import load_sem_seg

    for source in (folder / "annotations").rglob("*.png"):
        target = folder / "annotations_detectron2" / source.relative_to(folder / "annotations")
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(Image.open(source)) - 1).save(target)
    roots = str(folder / "annotations_detectron2" / "validation"), str(folder / "images" / "validation")
    DatasetCatalog.register(CONVERTED, lambda: load_sem_seg(*roots))
    metadata = MetadataCatalog.get(CONVERTED)
    metadata.set(sem_seg_root=roots[0], image_root=roots[1], ignore_label=255, stuff_classes=["any"] * 150)
    yield CONVERTED
    DatasetCatalog.remove(CONVERTED)
    MetadataCatalog.remove(CONVERTED)


def test_records_are_those_of_detectron2(folder, converted):
    from detectron2.data import DatasetCatalog

    registered(folder)
    ours, theirs = DatasetCatalog.get(VAL), DatasetCatalog.get(converted)
    assert [each["file_name"] for each in ours] == [each["file_name"] for each in theirs]
    assert [os.path.basename(each["sem_seg_file_name"]) for each in ours] == [
        os.path.basename(each["sem_seg_file_name"]) for each in theirs
    ]


def test_the_folder_is_looked_for_where_detectron2_has_it(monkeypatch):
    from detectron2.data import MetadataCatalog

    monkeypatch.setenv("DETECTRON2_DATASETS", "/somewhere")
    registered("")
    assert MetadataCatalog.get(VAL).image_root == "/somewhere/ADEChallengeData2016/images/validation"
    monkeypatch.delenv("DETECTRON2_DATASETS")
    registered("")
    assert MetadataCatalog.get(VAL).image_root == "data/ADEChallengeData2016/images/validation"


def same(one, other):
    """Whether two inputs of a model are equal but for the paths."""
    assert one.keys() - {"image_id"} == other.keys() - {"image_id"}
    if "instances" in one:
        assert torch.equal(one["instances"].gt_classes, other["instances"].gt_classes)
        assert torch.equal(one["instances"].gt_masks, other["instances"].gt_masks)
    return torch.equal(one["image"], other["image"]) and torch.equal(one["sem_seg"], other["sem_seg"])


def check_mapper(cfg, converted):
    """Both mappers draw the same crops and flips from the same seed."""
    from detectron2.data import DatasetCatalog

    from cvplugins.detectron2.data.mappers import build_mapper
    from cvplugins.randomness import seed_everything

    ours, theirs = build_mapper(cfg, [VAL]), build_mapper(cfg, [converted])
    ignored = 0
    for one, other in zip(DatasetCatalog.get(VAL), DatasetCatalog.get(converted), strict=True):
        seed_everything(1)
        mapped = ours(one)
        seed_everything(1)
        assert same(mapped, theirs(other))
        ignored += int((mapped["sem_seg"] == 255).sum())
    assert ignored > 0


def test_detectron2s_mapper_gets_the_converted_labels(folder, converted):
    check_mapper(registered(folder), converted)


@pytest.mark.mask2former
def test_mask2formers_mapper_gets_the_converted_labels(folder, converted):
    from small_mask2former import small_mask2former

    from cvplugins.detectron2.data.ade20k import register_ade20k

    cfg = small_mask2former(scenes=folder)
    register_ade20k(cfg)
    check_mapper(cfg, converted)


def test_two_kinds_of_label_maps_do_not_mix(folder, converted):
    from cvplugins.detectron2.data.mappers import build_mapper
    from cvplugins.errors import UserError

    with pytest.raises(UserError, match="some have label maps that begin with 1"):
        build_mapper(registered(folder), [VAL, converted])


def test_the_evaluator_equals_sem_seg_evaluator_on_the_converted_labels(folder, converted):
    """Oracle: Detectron2's SemSegEvaluator, of the same predictions."""
    from detectron2.data import DatasetCatalog
    from detectron2.evaluation import SemSegEvaluator

    from cvplugins.detectron2 import CvpluginsSegmentationEvaluator

    registered(folder)
    generator = np.random.default_rng(0)
    records = DatasetCatalog.get(VAL)
    outputs = []
    for record in records:
        label = np.asarray(Image.open(record["sem_seg_file_name"])).astype(np.int64)
        guess = np.where(generator.random(label.shape) < 0.7, np.maximum(label - 1, 0), 11)
        outputs.append({"sem_seg": torch.nn.functional.one_hot(torch.from_numpy(guess), 150).permute(2, 0, 1)})
    theirs = SemSegEvaluator(converted, distributed=False)
    ours = CvpluginsSegmentationEvaluator(VAL)
    for evaluator in (theirs, ours):
        evaluator.reset()
        evaluator.process(records, outputs)
    expected, found = theirs.evaluate()["sem_seg"], ours.evaluate()["sem_seg"]
    assert 0.3 < found["mIoU"] < 1
    for ours_name, name in (("mIoU", "mIoU"), ("fwIoU", "fwIoU"), ("mAcc", "mACC"), ("aAcc", "pACC")):
        assert found[ours_name] == pytest.approx(expected[name] / 100, rel=1e-12)


@pytest.mark.parametrize(("name", "first"), [(VAL, 1), (CONVERTED, 0)])
def test_written_label_maps_have_the_labels_of_the_files(folder, converted, tmp_path, name, first):
    from detectron2.data import DatasetCatalog

    from cvplugins.detectron2.metrics.predictions import WriteLabelMaps

    registered(folder)
    guess = torch.arange(12).reshape(3, 4)
    scores = torch.nn.functional.one_hot(guess, 150).permute(2, 0, 1)
    record = DatasetCatalog.get(name)[0]
    WriteLabelMaps(name, tmp_path / "maps").process([record], [{"sem_seg": scores}])
    (written,) = (tmp_path / "maps").iterdir()
    assert written.stem == os.path.splitext(os.path.basename(record["file_name"]))[0]
    assert np.array_equal(np.asarray(Image.open(written)), guess + first)


def check(root, **data):
    from cvplugins.detectron2.data.checks import check_data

    check_data(registered(root, **data), [VAL])


def test_whole_data_passes_the_check(folder):
    check(folder)


def marked(label):
    label[0, 0] = 151
    return label


@pytest.mark.parametrize(
    ("pixels", "message"),
    [(marked, r"{path}: label 151 \(1 pixels\)"), (lambda label: label[:-1], r"{path}: is \d+ x \d+ pixels, but")],
    ids=["label out of range", "another size"],
)
def test_broken_label_maps_are_found_before_any_work(folder, pixels, message):
    from cvplugins.errors import UserError

    path = spoil(folder, pixels)
    with pytest.raises(UserError, match=message.format(path=path)):
        check(folder)


def test_missing_data_says_how_to_get_it(tmp_path):
    from cvplugins.errors import UserError

    with pytest.raises(UserError, match=r"images/validation does not exist. To get ADE20K: .*detectron2/ade20k"):
        check(tmp_path)


def test_another_number_of_classes_is_found(folder):
    from cvplugins.detectron2.data.checks import check_data
    from cvplugins.errors import UserError

    cfg = registered(folder)
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 54
    with pytest.raises(UserError, match="NUM_CLASSES is 54, but dataset cvplugins_ade20k_val has 150 classes"):
        check_data(cfg, [VAL])


def test_detectron2s_own_dataset_hints_at_ours(tmp_path, converted):
    """Its folder of converted label maps is what is most often missing."""
    from detectron2.config import get_cfg
    from detectron2.data import MetadataCatalog

    from cvplugins.detectron2.data.ade20k import check_scenes
    from cvplugins.errors import UserError

    metadata = MetadataCatalog.get("ade20k_sem_seg_val")
    with pytest.raises(UserError, match="does not exist; cvplugins_ade20k_train and cvplugins_ade20k_val read"):
        check_scenes("ade20k_sem_seg_val", metadata, get_cfg())
    check_scenes(converted, MetadataCatalog.get(converted), get_cfg())
