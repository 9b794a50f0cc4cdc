"""The tools with a config of Detectron2: what they write, their exit codes, and several processes."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from small_detectron2_run import write_config
from tool_runs import run_on_ranks

SAMPLE = "configs/detectron2/voc_faster_rcnn_sample.yaml"


@pytest.fixture
def tool(root, tmp_path, monkeypatch, capfd):
    """Run a tool in this process; return its exit code, its output and its error lines."""
    monkeypatch.chdir(root)

    def _tool(name, *arguments):
        spec = importlib.util.spec_from_file_location(f"tool_{name}", root / "tools" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        code = module.main()
        printed = capfd.readouterr()
        return code, printed.out, [line for line in printed.err.splitlines() if line.startswith("error: ")]

    return _tool


@pytest.fixture(scope="module")
def trained(tmp_path_factory, devkit):
    """Config and folder of a run of two iterations."""
    from cvplugins.detectron2.run.launch import train

    folder = tmp_path_factory.mktemp("run")
    keys = {"SOLVER.MAX_ITER": 2, "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0, "TEST.DETECTIONS_PER_IMAGE": 20}
    config = write_config(folder / "small.yaml", devkit, **keys)
    train(config, work_dir=str(folder / "work"))
    return config, folder / "work"


def results(folder):
    return json.loads((folder / "inference" / "bbox_results.json").read_text())


@pytest.mark.detectron2
def test_a_run_writes_log_config_checkpoints_and_results(trained):
    from cvplugins.detectron2 import load_config

    config, work = trained
    assert {each.name for each in work.iterdir()} >= {
        *("log.txt", "metrics.json", "config.yaml", "model_final.pth", "last_checkpoint", "inference"),
    }
    log = (work / "log.txt").read_text()
    assert "total_loss" in log
    assert "class " in log  # the evaluator's table
    expected = load_config(config)
    expected.OUTPUT_DIR = str(work)
    assert load_config(work / "config.yaml") == expected
    assert sum(each["num_detections"] for each in results(work)["per_class"].values()) > 0


@pytest.mark.detectron2
def test_a_checkpoint_is_evaluated_written_and_drawn(tool, trained, devkit, tmp_path):
    """Oracles: the evaluation at the end of the training, and the evaluation of the saved predictions."""
    config, work = trained
    again, checkpoint = tmp_path / "again", work / "model_final.pth"
    options = ("--work-dir", again, "--show-dir", tmp_path / "drawn")
    code, printed, _ = tool("test", config, checkpoint, "--out", tmp_path / "metrics.json", *options)
    assert code == 0
    assert results(again) == results(work)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert f"bbox/AP50                {metrics['bbox/AP50']:.4f}" in printed
    assert len(list((tmp_path / "drawn").glob("*.jpg"))) == 3

    assert tool("test", config, checkpoint, "--out", tmp_path / "found.pkl", "--work-dir", again)[0] == 0
    for name in ("metrics.json", "found.pkl"):
        assert (tmp_path / name).read_bytes() == (again / "test_results" / name).read_bytes()


@pytest.mark.detectron2
def test_saved_predictions_are_worth_what_the_model_was(tool, devkit, tmp_path):
    """Oracle: the evaluator, on boxes some of whose overlaps a shift by a pixel carries over a threshold."""
    from detectron2.data import DatasetCatalog
    from detectron2.structures import Boxes, Instances

    from cvplugins.detectron2 import CvpluginsDetectionEvaluator, load_config, register_voc
    from cvplugins.detectron2.metrics.predictions import DumpPredictions

    register_voc(load_config(write_config(tmp_path / "small.yaml", devkit)))
    name = "cvplugins_voc_2007_test"
    evaluators = (
        CvpluginsDetectionEvaluator(name, rules=["detectron2"], out_dir=tmp_path / "inference"),
        DumpPredictions(name, tmp_path / "found.pkl"),
    )
    for record in DatasetCatalog.get(name):
        true = torch.tensor([each["bbox"] for each in record["annotations"]])
        generator = torch.Generator().manual_seed(len(true))
        found = Instances((record["height"], record["width"]))
        found.pred_boxes = Boxes((true + 10 * torch.randn(20, *true.shape, generator=generator)).reshape(-1, 4))
        found.scores = torch.rand(len(found), generator=generator)
        found.pred_classes = torch.tensor([each["category_id"] for each in record["annotations"]]).repeat(20)
        for each in evaluators:
            each.process([record], [{"instances": found}])
    for each in evaluators:
        each.evaluate()
    annotations = ("--annotations", devkit / "VOC2007", "--split", "test", "--rules", "detectron2")
    saved = ("--trust-pickle", "--out-dir", tmp_path / "saved")
    assert tool("evaluate", tmp_path / "found.pkl", *annotations, *saved)[0] == 0
    found = json.loads(next((tmp_path / "saved").glob("*results.json")).read_text())
    assert found["per_class"] == results(tmp_path)["per_class"]


@pytest.mark.detectron2
def test_mistakes_end_in_one_line_and_code_2(tool, trained, devkit, tmp_path):
    config, work = trained
    other = tmp_path / "other.pth"
    torch.save({"model": {"backbone.weight": torch.zeros(1)}}, other)
    evil = tmp_path / "evil.pkl"
    evil.write_bytes(b"cos\nsystem\n(S'touch " + os.fsencode(tmp_path / "ran") + b"'\ntR.")
    checkpoint = work / "model_final.pth"
    cases = [
        (("train", "configs/detectron2/none.yaml"), "configs/detectron2/none.yaml does not exist"),
        (("train", config, "--cfg-options", "SOLVER.MAX_ITERS=3"), "did you mean SOLVER.MAX_ITER?"),
        (("train", config, "--cfg-options", "MODEL.BACKBONE.NAME=none"), "No object named 'none' found in 'BACKBONE'"),
        (("train", config, "--resume", "none.pth"), "checkpoint none.pth does not exist"),
        (("train", config, "--cfg-options", "MODEL.WEIGHTS=none.pkl"), "checkpoint none.pkl does not exist"),
        (("train", config, "--auto-scale-lr"), "lacks CVPLUGINS.TRAIN.BASE_BATCH_SIZE"),
        (("train", config, "--launcher", "slurm"), "--launcher slurm: Detectron2 jobs are started by torchrun"),
        (("train", config, "--launcher", "pytorch"), "torchrun has not set"),
        (("test", config, other), "other.pth is of another architecture than the config"),
        (("test", config, evil), "evil.pkl holds more than weights and plain data"),
        (("test", config, checkpoint, "--out", "a.txt"), "--out a.txt: use a name that ends in .json"),
        (("test", config, checkpoint, "--cfg-options", "DATASETS.TEST=()"), "has no DATASETS.TEST"),
    ]
    if not torch.cuda.is_available():
        cases.append((("train", config, "--amp"), "--amp (SOLVER.AMP.ENABLED) needs a GPU"))
    for arguments, message in cases:
        code, _, errors = tool(*arguments, "--work-dir", tmp_path / "work", "--dry-run")
        assert (code, len(errors)) == (2, 1), arguments
        assert message in errors[0]
    assert not (tmp_path / "work").exists()
    assert not (tmp_path / "ran").exists()


@pytest.mark.detectron2
def test_a_dry_run_checks_and_writes_nothing(tool, root, trained, tmp_path):
    config, work = trained
    options = ("--work-dir", tmp_path / "work", "--dry-run")
    assert tool("train", SAMPLE, *options)[:2] == (0, f"config, plugins and data of {SAMPLE} are fine\n")
    code, printed, _ = tool("test", config, work / "model_final.pth", *options)
    assert (code, printed) == (0, f"config, plugins, data and checkpoint of {config} are fine\n")
    assert not (tmp_path / "work").exists()


@pytest.mark.detectron2
def test_the_learning_rate_follows_the_batch(trained):
    from cvplugins.detectron2 import load_config
    from cvplugins.detectron2.run.launch import _use_scaled_lr

    keys = {"CVPLUGINS.TRAIN.BASE_BATCH_SIZE": 16, "CVPLUGINS.TRAIN.ACCUMULATE": 4, "SOLVER.IMS_PER_BATCH": 2}
    cfg = load_config(trained[0], {**keys, "SOLVER.BASE_LR": 0.02})
    _use_scaled_lr(cfg)
    assert pytest.approx(0.01) == cfg.SOLVER.BASE_LR


@pytest.mark.parametrize(
    ("config", "package", "command"),
    [
        (SAMPLE, "detectron2", "pip install --no-build-isolation"),
        ("configs/voc_faster_rcnn_sample.py", "mmengine", "pip install 'cvplugins[openmmlab]'"),
    ],
)
def test_an_absent_framework_is_named_with_the_command_that_installs_it(tool, monkeypatch, config, package, command):
    adapters = ("cvplugins.detectron2.", "cvplugins.openmmlab.", f"{package}.")
    for name in [each for each in sys.modules if f"{each}.".startswith(adapters)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    code, _, errors = tool("train", config)
    assert code == 2
    assert len(errors) == 1
    assert f"this config needs {package}, which is not installed: {command}" in errors[0]


OPENMMLAB = ("mmengine", "mmcv", "mmdet", "mmseg")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("adapter", "others"),
    [
        pytest.param("detectron2", OPENMMLAB, marks=pytest.mark.detectron2),
        pytest.param("openmmlab", ("detectron2",), marks=pytest.mark.openmmlab),
    ],
)
def test_a_job_imports_no_other_framework(root, adapter, others):
    code = f"import sys, cvplugins.{adapter}.run.launch; print([name for name in {others} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.detectron2
@pytest.mark.distributed
@pytest.mark.slow
def test_two_processes_train_and_evaluate_as_one(root, tool, trained, tmp_path):
    """Oracle: one process, on the checkpoint that two have made, without padding of the odd number of images."""
    config, _ = trained
    work, options = tmp_path / "two", ("--cfg-options", "CVPLUGINS.TRAIN.ACCUMULATE=2", "TEST.EVAL_PERIOD", "1")
    outputs = run_on_ranks(root, 2, "tools/train.py", config, "--work-dir", work, *options)
    assert [output.count("bbox/AP50 ") for output in outputs] == [1, 0]
    shutil.copytree(work / "inference", tmp_path / "kept" / "inference")
    assert tool("test", config, work / "model_final.pth", "--work-dir", work)[0] == 0
    assert results(work) == results(tmp_path / "kept")
