"""The original Mask2Former with the tools: configs against the project's, runs, resuming, testing."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scenes import small_scenes
from small_detectron2_run import differences
from small_mask2former import small_mask2former
from tool_runs import run_code

pytestmark = [pytest.mark.detectron2, pytest.mark.mask2former]

FOLDER = "configs/detectron2"


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("R50", "maskformer2_R50_bs16_160k.yaml"),
        ("swin_L", "swin/maskformer2_swin_large_IN21k_384_bs16_160k_res640.yaml"),
    ],
)
def test_what_differs_from_the_projects_recipe(root, ours, theirs):
    """Oracle: the project's own file, read as its train_net.py reads it."""
    from detectron2.config import get_cfg

    from cvplugins.detectron2 import add_cvplugins_config, load_config, validate_cvplugins_config
    from cvplugins.detectron2.mask2former.config import add_mask2former_config

    recipe = get_cfg()
    add_cvplugins_config(recipe)
    add_mask2former_config(recipe)
    file = Path(os.environ["MASK2FORMER_ROOT"], "configs/ade20k/semantic-segmentation", theirs)
    recipe.merge_from_file(str(file), allow_unsafe=True)
    cfg = load_config(root / FOLDER / f"ade20k_mask2former_{ours}.yaml")
    validate_cvplugins_config(cfg)
    assert differences(cfg, recipe) == {
        "DATASETS.TRAIN": ("cvplugins_ade20k_train",),
        "DATASETS.TEST": ("cvplugins_ade20k_val",),
        "MODEL.META_ARCHITECTURE": "CvpluginsMaskFormer",
        # Of DeepLab's ResNet: not used, as the project's file says.
        "MODEL.RESNETS.STEM_TYPE": "deeplab",
        "MODEL.RESNETS.RES5_MULTI_GRID": [1, 2, 4],
        "CVPLUGINS.TRAIN.BASE_BATCH_SIZE": 16,
        "CVPLUGINS.HOOKS": [{"type": "GradientHealthHook"}, {"type": "BestCheckpointHook", "monitor": "sem_seg/mIoU"}],
        "CVPLUGINS.NORM.rules": [{"to": "SyncBN", "frozen": "keep"}],
    }


@pytest.fixture(scope="module")
def folder(scenes, tmp_path_factory):
    return small_scenes(scenes, tmp_path_factory.mktemp("data") / "ADEChallengeData2016")


@pytest.fixture(scope="module")
def config(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "small.yaml"
    cfg = small_mask2former(scenes=folder)
    cfg.CVPLUGINS.HOOKS = [{"type": "GradientHealthHook"}, {"type": "ValidationLoss"}]
    cfg.TEST.EVAL_PERIOD = 2
    path.write_text(cfg.dump())
    return path


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory):
    """The folder of a run of four iterations."""
    from cvplugins.detectron2.run.launch import train

    work = tmp_path_factory.mktemp("straight")
    train(config, work_dir=str(work))
    return work


def test_hooks_see_every_loss_and_whole_images(config, trained):
    """The loss on the test set has the parts of the training's, and nothing is cut to the size of its crops."""
    import json

    from cvplugins.detectron2 import build_validation_loader, load_config
    from cvplugins.detectron2.data.catalog import register_datasets

    lines = [json.loads(line) for line in (trained / "metrics.json").read_text().splitlines()]
    logged = {name: value for line in lines for name, value in line.items()}
    parts = [f"loss_{kind}{layer}" for kind in ("ce", "mask", "dice") for layer in ("", "_0", "_1")]
    assert sum(logged[f"val/{part}"] for part in parts) == pytest.approx(logged["val/loss"])
    cfg = load_config(config)
    register_datasets(cfg)
    for (record,) in build_validation_loader(cfg):
        height, width = record["image"].shape[1:]
        assert min(height, width) == cfg.INPUT.MIN_SIZE_TEST
        assert width / height == pytest.approx(record["width"] / record["height"], abs=0.02)
        assert record["sem_seg"].shape == (height, width)


def weights(work):
    return torch.load(work / "model_final.pth", weights_only=False)["model"]


def test_a_resumed_run_equals_the_straight_one(config, trained, tmp_path):
    """The images, the points and the hooks go on where they were; oracle: the weights of the straight run."""
    from cvplugins.detectron2.run.launch import train

    (tmp_path / "last_checkpoint").write_text("model_0000001.pth")
    (tmp_path / "model_0000001.pth").write_bytes((trained / "model_0000001.pth").read_bytes())
    train(config, work_dir=str(tmp_path), resume="auto")
    straight, resumed = weights(trained), weights(tmp_path)
    assert all(torch.equal(torch.as_tensor(straight[name]), torch.as_tensor(resumed[name])) for name in straight)


def test_what_a_test_writes(config, trained, folder, tmp_path):
    """Label maps for the server, of the images' sizes with labels from 1; scored again they give the same mIoU."""
    import json

    from cvplugins.datasets import ADE20K_CLASSES
    from cvplugins.detectron2.run.launch import evaluate
    from cvplugins.evaluation import evaluate_label_images

    out, maps, drawn = tmp_path / "metrics.json", tmp_path / "maps", tmp_path / "drawn"
    evaluate(
        config,
        trained / "model_final.pth",
        out=str(out),
        label_dir=str(maps),
        show_dir=str(drawn),
        work_dir=str(tmp_path),
    )
    images = sorted((folder / "images" / "validation").glob("*.jpg"))
    assert [each.stem for each in sorted(drawn.iterdir())] == [each.stem for each in images]
    for image in images:
        written = Image.open(maps / f"{image.stem}.png")
        assert written.size == Image.open(image).size
        assert np.asarray(written).min() >= 1
    labels = folder / "annotations" / "validation"
    again = evaluate_label_images(maps, labels, ADE20K_CLASSES, reduce_zero_label="both", rule="detectron2")
    assert again.scalars()["mIoU"] == pytest.approx(json.loads(out.read_text())["sem_seg/mIoU"], rel=1e-9)


def test_sizes_are_averaged_as_the_project_does(config, trained):
    """Oracle: the mean of the model's own scores at two sizes, each also mirrored, by hand."""
    from detectron2.data import DatasetCatalog
    from detectron2.data import detection_utils as utils
    from detectron2.data.transforms import ResizeShortestEdge

    from cvplugins.detectron2 import CvpluginsTrainer, load_config
    from cvplugins.detectron2.data.catalog import register_datasets
    from cvplugins.detectron2.mask2former.test_time import use_inference, with_several_sizes

    cfg = load_config(config)
    register_datasets(cfg)
    use_inference(cfg, scales=[1.0, 1.5], flip=True)
    model = CvpluginsTrainer.build_model(cfg).eval()
    record = DatasetCatalog.get("cvplugins_ade20k_val")[0]
    pixels = utils.read_image(record["file_name"], "RGB")
    height, width = pixels.shape[:2]

    def scores(image):
        image = torch.as_tensor(np.ascontiguousarray(image.transpose(2, 0, 1)))
        return model([{"image": image, "height": height, "width": width}])[0]["sem_seg"]

    with torch.no_grad():
        whole = {"image": torch.as_tensor(pixels.transpose(2, 0, 1).copy()), "height": height, "width": width}
        found = with_several_sizes(cfg, model)([whole])[0]["sem_seg"]
        parts = []
        for side in (64, 96):
            small = ResizeShortestEdge(side, 600).get_transform(pixels).apply_image(pixels)
            parts += [scores(small), scores(small[:, ::-1]).flip(2)]
    torch.testing.assert_close(found, sum(parts) / 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "slide"}, "--mode slide is for mmseg's models"),
        ({"out": "found.pkl"}, "predicts no boxes; label maps go to --label-dir"),
    ],
)
def test_what_mask2former_cannot_do_is_said_before_any_work(config, options, message):
    from cvplugins.detectron2.run.launch import evaluate
    from cvplugins.errors import UserError

    with pytest.raises(UserError, match=message):
        evaluate(config, "no checkpoint", **options)


def test_a_failed_run_is_replayed_in_a_process_that_knows_nothing_of_the_project(root, config, tmp_path):
    from cvplugins.detectron2 import load_config

    written = tmp_path / "config.yaml"
    written.write_text(load_config(config).dump())
    code = (
        f"from cvplugins.detectron2.run.replay import build_model; print(type(build_model({str(written)!r})).__name__)"
    )
    assert run_code(root, code).split()[-1:] == ["CvpluginsMaskFormer"]


@pytest.mark.slow
def test_the_sample_learns_and_is_evaluated(root, tmp_path, monkeypatch):
    """Oracles: half the loss of the beginning after 45 iterations; Detectron2's SemSegEvaluator."""
    from detectron2.data import detection_utils as utils
    from detectron2.evaluation import SemSegEvaluator

    from cvplugins.detectron2 import CvpluginsSegmentationEvaluator, CvpluginsTrainer, load_config
    from cvplugins.detectron2.data.catalog import register_datasets
    from cvplugins.randomness import seed_everything

    monkeypatch.chdir(root)
    name = "cvplugins_ade20k_val"
    cfg = load_config(f"{FOLDER}/ade20k_mask2former_sample.yaml")
    cfg.MODEL.DEVICE, cfg.OUTPUT_DIR = "cpu", str(tmp_path)
    cfg.TEST.EVAL_PERIOD, cfg.DATALOADER.NUM_WORKERS = 0, 0
    cfg.CVPLUGINS.HOOKS = []
    register_datasets(cfg)
    seed_everything(0)
    trainer = CvpluginsTrainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.max_iter = 45  # of 400
    trainer.train()
    losses = [value for value, _ in trainer.storage.history("total_loss").values()]
    assert len(losses) == 45
    assert np.mean(losses[-5:]) <= losses[0] / 2

    def reduced(file_name, copy=False, dtype=None):
        return utils.read_image(file_name).astype(np.uint8) - 1  # as prepare_ade20k_sem_seg.py

    ours = CvpluginsTrainer.test(cfg, trainer.model, [CvpluginsSegmentationEvaluator(name)])["sem_seg"]
    theirs = SemSegEvaluator(name, distributed=False, sem_seg_loading_fn=reduced)
    expected = CvpluginsTrainer.test(cfg, trainer.model, [theirs])["sem_seg"]
    assert ours["mIoU"] == pytest.approx(expected["mIoU"] / 100, rel=1e-12)
    assert ours["aAcc"] > 0.3


def test_real_images(real_ade20k, tmp_path):
    """Three real photographs and their label maps train, are evaluated, drawn and written."""
    from cvplugins.detectron2.run.launch import evaluate, train

    cfg = small_mask2former(scenes=real_ade20k / "ADEChallengeData2016")
    cfg.SOLVER.update(MAX_ITER=2, CHECKPOINT_PERIOD=100)
    config = tmp_path / "real.yaml"
    config.write_text(cfg.dump())
    train(config, work_dir=str(tmp_path))
    drawn, maps = tmp_path / "drawn", tmp_path / "maps"
    summary = evaluate(
        config, tmp_path / "model_final.pth", work_dir=str(tmp_path), show_dir=str(drawn), label_dir=str(maps)
    )
    assert "sem_seg/mIoU" in summary
    assert len(list(drawn.iterdir())) == len(list(maps.iterdir())) == 3
