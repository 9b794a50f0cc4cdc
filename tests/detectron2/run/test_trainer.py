"""The trainer: accumulated gradients, resuming, evaluators, optimizers, hooks, and mistakes in their keys."""

import json

import pytest
import torch
from helpers import needs_torch, run_ranks
from small_detectron2_run import trained_regression, write_config

pytestmark = pytest.mark.detectron2


@pytest.fixture(scope="module")
def big_batch():
    """Oracle: Detectron2's SimpleTrainer, on batches of 8."""
    return trained_regression(8, 1)


def assert_equal_runs(found, expected, tolerance=1e-6):
    (weights, losses), (big_weights, big_losses) = found, expected
    assert losses == pytest.approx(big_losses, rel=tolerance)
    for name, value in weights.items():
        torch.testing.assert_close(value, big_weights[name], rtol=tolerance, atol=tolerance)


def test_accumulated_gradients_are_those_of_one_big_batch(big_batch):
    assert_equal_runs(trained_regression(2, 4), big_batch)


@needs_torch(2, 3, "losses are scaled on GPUs only before")
def test_accumulated_gradients_in_mixed_precision(big_batch):
    """Within half precision's digits; gradients that stayed scaled would be 256 times as large."""
    found = trained_regression(2, 4, amp=True)
    assert_equal_runs(found, big_batch, tolerance=5e-3)
    assert found[1] != big_batch[1]


@pytest.mark.distributed
def test_accumulated_gradients_of_two_processes_are_those_of_one_big_batch(big_batch):
    first, second = run_ranks(trained_regression, 2, 2, 2)
    assert_equal_runs(first, big_batch)
    assert_equal_runs((second[0], big_batch[1]), big_batch)


def run(config, **options):
    from cvplugins.detectron2.run.launch import train

    return train(config, **options)


def weights(folder, name="model_final"):
    return torch.load(folder / f"{name}.pth", weights_only=True)["model"]


NO_FIGURES = [{"type": "CvpluginsDetectionEvaluator", "out_dir": None}]
HOOKS = [{"type": "EMAHook"}, {"type": "GradientClippingHook", "max_norm": 1.0}]
KEYS = {
    "CVPLUGINS.HOOKS": HOOKS,
    "CVPLUGINS.TRAIN.ACCUMULATE": 2,
    "CVPLUGINS.EVALUATORS": NO_FIGURES,
    "INPUT.MIN_SIZE_TRAIN": (48, 64),
    "DATALOADER.NUM_WORKERS": 1,
    "SEED": -1,
}


def test_a_resumed_run_repeats_the_straight_one(tmp_path, devkit):
    """Images, augmentation, sampled anchors, momentum, schedule, hooks; the seed was drawn and is in the checkpoint."""
    config = write_config(tmp_path / "small.yaml", devkit, **KEYS)
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    run(config, work_dir=str(straight))
    summary = run(config, work_dir=str(resumed), resume=str(straight / "model_0000001.pth"))
    first, second = weights(straight), weights(resumed)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    before = weights(straight, "model_0000001")
    assert any(not torch.equal(value, before[name]) for name, value in first.items())
    for line in ("bbox/AP50 ", f"checkpoint               {resumed / 'model_final.pth'}", f"{resumed / 'log.txt'}"):
        assert line in summary
    # Without a value: the newest checkpoint of the work dir, here the end of the run.
    run(config, work_dir=str(resumed), resume="auto")
    assert "Starting training from iteration 4" in (resumed / "log.txt").read_text()
    scores = [json.loads(each).get("bbox/AP50") for each in (straight / "metrics.json").read_text().splitlines()]
    assert scores[-1] is not None


def test_weights_alone_are_no_run_to_resume(tmp_path, devkit):
    from cvplugins.detectron2 import CvpluginsTrainer
    from cvplugins.errors import UserError

    cfg = loaded(tmp_path, devkit, OUTPUT_DIR=str(tmp_path))
    model = CvpluginsTrainer.build_model(cfg).state_dict()
    name = "roi_heads.box_predictor.cls_score.bias"
    cases = {
        "has no state of a run to resume": {"model": model},
        f"another architecture than the config: {name} is missing": {
            "model": {each: value for each, value in model.items() if each != name}
        },
    }
    for message, content in cases.items():
        torch.save(content, tmp_path / "weights.pth")
        with pytest.raises(UserError, match=message):
            CvpluginsTrainer(cfg).resume_or_load(str(tmp_path / "weights.pth"))


def test_early_stopping_ends_with_the_best_weights(tmp_path, devkit):
    hook = {"type": "EarlyStoppingHook", "monitor": "bbox/AP50", "rule": "less", "min_delta": 2.0, "patience": 1}
    keys = {"CVPLUGINS.HOOKS": [hook], "CVPLUGINS.EVALUATORS": NO_FIGURES, "TEST.EVAL_PERIOD": 1}
    config = write_config(tmp_path / "small.yaml", devkit, **keys)
    summary = run(config, work_dir=str(tmp_path / "run"))
    assert f"checkpoint               {tmp_path / 'run' / 'best_weights.pth'}" in summary
    assert not (tmp_path / "run" / "model_final.pth").exists()


def loaded(tmp_path, devkit, **keys):
    from cvplugins.detectron2 import load_config, register_voc

    cfg = load_config(write_config(tmp_path / "small.yaml", devkit, **keys))
    register_voc(cfg)
    return cfg


def evaluators(cfg, name):
    from cvplugins.detectron2 import CvpluginsTrainer

    return [type(each).__name__ for each in CvpluginsTrainer.build_evaluator(cfg, name)._evaluators]


def test_evaluators_fit_dataset_and_model_or_are_those_of_the_config(tmp_path, devkit):
    from cvplugins.detectron2 import CvpluginsTrainer

    test_set = "cvplugins_voc_2007_test"
    cfg = loaded(tmp_path, devkit, OUTPUT_DIR=str(tmp_path))
    assert evaluators(cfg, test_set) == ["CvpluginsDetectionEvaluator"]
    cfg.CVPLUGINS.EVALUATORS = [{"type": "CvpluginsDetectionEvaluator", "rules": ["coco"], "score_threshold": 0.3}]
    (built,) = CvpluginsTrainer.build_evaluator(cfg, test_set)._evaluators
    assert [rule.name for rule in built.rules] == ["coco"]
    assert built.score_threshold == 0.3
    assert built.out_dir == str(tmp_path / "inference")


def test_the_optimizer_of_the_config(tmp_path, devkit):
    from cvplugins.detectron2 import CvpluginsTrainer

    cfg = loaded(tmp_path, devkit)
    model = CvpluginsTrainer.build_model(cfg)
    assert type(CvpluginsTrainer.build_optimizer(cfg, model)) is torch.optim.SGD
    cfg.CVPLUGINS.TRAIN.OPTIMIZER.update(type="AdamW", betas=[0.8, 0.9])
    cfg.SOLVER.update(WEIGHT_DECAY=0.02, WEIGHT_DECAY_NORM=0.0)
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    optimizer = CvpluginsTrainer.build_optimizer(cfg, model)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert type(optimizer).__name__ == "AdamWWithGradientClip"
    assert list(optimizer.defaults["betas"]) == [0.8, 0.9]
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0, 0.02}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"CVPLUGINS.TRAIN.ACCUMULATE": 0}, "TRAIN.ACCUMULATE is 0; it must be at least 1"),
        ({"CVPLUGINS.TRAIN.OPTIMIZER.type": "AdamX"}, "OPTIMIZER: torch.optim has no 'AdamX'; use one"),
        ({"CVPLUGINS.TRAIN.OPTIMIZER.betas": [0.9, 0.99]}, "OPTIMIZER: betas without a type, such as AdamW"),
        (
            {"CVPLUGINS.TRAIN.OPTIMIZER.type": "AdamW", "CVPLUGINS.TRAIN.OPTIMIZER.lr": 0.1},
            "OPTIMIZER: lr is set by SOLVER.BASE_LR",
        ),
        (
            {"CVPLUGINS.TRAIN.OPTIMIZER.type": "AdamW", "CVPLUGINS.TRAIN.OPTIMIZER.beta": 0.1},
            "OPTIMIZER: .*unexpected keyword argument 'beta'",
        ),
        ({"CVPLUGINS.TRAIN.OPTIMIZER.type": "LBFGS"}, "OPTIMIZER: .*unexpected keyword argument 'weight_decay'"),
        ({"CVPLUGINS.EVALUATORS": ["COCO"]}, r"EVALUATORS\[0\]: expected a dict with a type"),
        ({"CVPLUGINS.EVALUATORS": [{"type": "COCOEvaluator"}]}, "no evaluator 'COCOEvaluator'; use CvpluginsDet"),
        (
            {"CVPLUGINS.EVALUATORS": [{"type": "CvpluginsDetectionEvaluator", "rule": "coco"}]},
            r"EVALUATORS\[0\]: CvpluginsDetectionEvaluator has no option rule; it has dataset_name, rules",
        ),
    ],
)
def test_mistakes_in_the_keys_of_a_run(tmp_path, devkit, keys, message):
    from cvplugins.detectron2 import validate_cvplugins_config
    from cvplugins.errors import UserError

    cfg = loaded(tmp_path, devkit, **keys)
    with pytest.raises(UserError, match=message):
        validate_cvplugins_config(cfg)


def test_a_number_that_is_undefined_is_no_value_yet(tmp_path, devkit):
    """Nothing reaches the score threshold, so that precision is undefined; oracle: the journal, and the evaluations."""
    hooks = [
        {"type": "BestCheckpointHook", "monitor": "bbox/precision"},
        {"type": "EarlyStoppingHook", "monitor": "bbox/precision", "patience": 1},
    ]
    evaluators = [{"type": "CvpluginsDetectionEvaluator", "out_dir": None, "score_threshold": 1.1}]
    keys = {"CVPLUGINS.HOOKS": hooks, "CVPLUGINS.EVALUATORS": evaluators, "TEST.EVAL_PERIOD": 1, "SOLVER.MAX_ITER": 2}
    work = tmp_path / "run"
    run(write_config(tmp_path / "small.yaml", devkit, **keys), work_dir=str(work))
    for name in ("best_checkpoint", "early_stopping"):
        records = [json.loads(each) for each in (work / f"{name}.jsonl").read_text().splitlines()]
        assert [record["value"] for record in records] == [None, None]
    assert not (work / "model_best.pth").exists()
    assert (work / "model_final.pth").exists()
    assert "no value yet: bbox/precision is undefined in this evaluation" in (work / "log.txt").read_text()
