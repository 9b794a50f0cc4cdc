"""What a user has who installs the wheels: no checkout, an empty folder, and the console command.

Oracles: exit codes and files; the committed sample; the checkpoint's own validation against its test and against the
evaluation of the saved predictions.
"""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import cvplugins

pytestmark = [pytest.mark.openmmlab, pytest.mark.slow]

# One pass over 8 images; the model is the sample's.
TINY = [
    *(f"train_dataloader.dataset.dataset.datasets.{index}.indices=4" for index in (0, 1)),
    *("train_dataloader.num_workers=0", "val_dataloader.num_workers=0", "val_dataloader.persistent_workers=False"),
    *("train_cfg.max_epochs=1", "train_cfg.val_interval=1"),
]
FEW = ["test_dataloader.num_workers=0", "test_dataloader.persistent_workers=False"]
FEW += [f"{loader}_dataloader.dataset.ann_file=VOC2007/ImageSets/Main/few.txt" for loader in ("val", "test")]


def uv(*arguments):
    """Run uv; from its cache alone if that holds what is asked for."""
    command = [shutil.which("uv"), *map(str, arguments)]
    for offline in (["--offline"], []):
        finished = subprocess.run([*command, *offline], capture_output=True, text=True, timeout=570)
        if finished.returncode == 0:
            return
    raise AssertionError(finished.stderr)


@pytest.fixture(scope="module")
def installed(root, tmp_path_factory):
    """The folder of the programs of a fresh environment with both wheels."""
    folder = tmp_path_factory.mktemp("installed")
    for package in (root, root / "packages" / "mmcv-ops"):  # by their sdists: a folder build/ may hold old files
        uv("build", "--quiet", "--out-dir", folder / "wheels", package)
    # The versions that these tests run with, which lie in uv's cache.
    versions = {each.name.lower(): each.version for each in importlib.metadata.distributions() if each.name}
    ours = [name for name in versions if name.startswith("cvplugins")]
    pins = folder / "pins.txt"
    pins.write_text("".join(f"{name}=={version}\n" for name, version in versions.items() if name not in ours))
    uv("venv", "--quiet", "--python", sys.executable, folder / "env")
    wheel = next((folder / "wheels").glob("cvplugins-*.whl"))
    to_env = ("--python", folder / "env" / "bin" / "python", "--find-links", folder / "wheels")
    uv("pip", "install", "--quiet", *to_env, "--constraint", pins, f"cvplugins[openmmlab] @ {wheel.as_uri()}")
    return folder / "env" / "bin"


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    return tmp_path_factory.mktemp("empty")


@pytest.fixture(scope="module")
def command(installed, empty):
    """Run a program of the environment in the empty folder; return what it printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}

    def _command(program, *arguments):
        finished = subprocess.run(
            [installed / program, *map(str, arguments)],
            cwd=empty,
            env=environment,
            capture_output=True,
            text=True,
            timeout=570,
        )
        assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-5000:]
        return finished.stdout + finished.stderr

    return _command


@pytest.fixture(scope="module")
def trained(command, empty):
    """Everything that a training by name prints; it begins in an empty folder."""
    assert list(empty.iterdir()) == []
    printed = command("cvplugins", "train", "voc_faster_rcnn_sample", "--cfg-options", *TINY)
    few = empty / "data" / "sample" / "VOCdevkit" / "VOC2007" / "ImageSets" / "Main" / "few.txt"
    few.write_text("".join(f"{line}\n" for line in (few.parent / "test.txt").read_text().split()[:8]))
    return printed


def test_the_command_and_the_configs_come_from_the_wheel(command, installed):
    assert command("cvplugins", "--version") == f"cvplugins {cvplugins.__version__}\n"
    assert "Commands:\n  train " in command("cvplugins", "--help")
    place = Path(command("python", "-c", "import cvplugins; print(cvplugins.config_path('voc_faster_rcnn'))").strip())
    assert place.is_relative_to(installed.parent)
    assert place.parts[-3:] == ("cvplugins", "configs", "voc_faster_rcnn.py")


def test_a_training_by_name_draws_its_sample_first(trained, empty, sample):
    assert "data/sample/VOCdevkit/ does not exist: drawing the sample" in trained
    assert "bbox/AP50_11point" in trained
    work = empty / "work_dirs" / "voc_faster_rcnn_sample"
    assert (work / "epoch_1.pth").is_file()
    assert list(work.glob("*/bbox_results.json"))
    assert list(work.glob("*/bbox_figure.png"))  # by matplotlib
    drawn = empty / "data" / "sample" / "VOCdevkit"
    names = {path.relative_to(sample) for path in sample.rglob("*") if path.is_file()}
    few = Path("VOC2007/ImageSets/Main/few.txt")
    assert names == {path.relative_to(drawn) for path in drawn.rglob("*") if path.is_file()} - {few}
    for name in names:
        if name.suffix != ".jpg":  # how a JPEG is packed depends on Pillow's encoder
            assert (sample / name).read_bytes() == (drawn / name).read_bytes(), name


@pytest.mark.usefixtures("trained")
def test_its_checkpoint_is_tested_and_its_predictions_evaluated(command, empty):
    checkpoint = "work_dirs/voc_faster_rcnn_sample/epoch_1.pth"
    options = ("--out", "found.pkl", "--work-dir", "tested", "--cfg-options", *FEW)
    command("cvplugins", "test", "voc_faster_rcnn_sample", checkpoint, *options)
    annotations = ("--annotations", "data/sample/VOCdevkit/VOC2007", "--split", "few", "--rules", "voc2007")
    command("cvplugins", "evaluate", "found.pkl", *annotations, "--trust-pickle", "--out-dir", "evaluated")
    tested, evaluated = (
        json.loads(next((empty / folder).rglob("*_results.json")).read_text())["per_class"]
        for folder in ("tested", "evaluated")
    )
    counts = {name: (each["num_truths"], each["num_detections"]) for name, each in tested.items()}
    assert counts == {name: (each["num_truths"], each["num_detections"]) for name, each in evaluated.items()}
    assert all(sum(numbers) > 0 for numbers in zip(*counts.values(), strict=True))
    assert list((empty / "evaluated").glob("*.png"))


@pytest.mark.usefixtures("trained")
def test_a_config_of_ones_own_inherits_in_upstreams_own_tool(command, empty, installed):
    (empty / "mine.py").write_text(
        "_base_ = __import__('cvplugins').config_path('voc_faster_rcnn_sample')\n"
        "model = dict(roi_head=dict(bbox_head=dict(loss_cls=dict(_delete_=True, type='cvplugins.FocalLoss'))))\n"
    )
    tool = next(installed.parent.glob("lib/python*/site-packages/mmdet/.mim/tools/train.py"))
    options = [*TINY, FEW[-2]]
    printed = command("python", tool, "mine.py", "--work-dir", "upstream", "--cfg-options", *options)
    assert "bbox/AP50_11point: " in printed
    assert (empty / "upstream" / "epoch_1.pth").is_file()


def test_a_sample_is_drawn_where_one_says(command, empty):
    said = command("cvplugins", "sample", "ade20k", "scenes")
    assert "scenes: 201 images, 405 files" in said
    assert (empty / "scenes" / "drawn.txt").read_text() == "cvplugins sample ade20k --seed 0\n"
