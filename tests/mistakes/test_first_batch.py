"""What only a batch refuses, or what makes the first step not finite: one line before the run, and nothing written."""

import pytest
import torch
from devkits import small_devkit

CONFIG = "tests/integration/tiny.py"
CODER = "model.roi_head.bbox_head.bbox_coder"
LR = "optim_wrapper.optimizer.lr"

pytestmark = pytest.mark.openmmlab


@pytest.fixture(scope="module")
def devkit(sample, tmp_path_factory):
    return small_devkit(sample, tmp_path_factory.mktemp("values") / "VOCdevkit")


def train(devkit, *options):
    return ("train", CONFIG, "--cfg-options", f"data_root={devkit}", *options)


# The option, and what the line says beside its key; the oracle is that a run with it dies, or learns nothing. The dry
# run's own are in test_config_values.py.
@pytest.mark.parametrize(
    ("option", "parts"),
    [
        ("model.neck.num_outs=4", ["does not go through the model", "len(featmap_sizes)", "--cfg-options sets"]),
        ("model.data_preprocessor.std=[0,0,0]", ["the images are not finite", "[0, 0, 0]"]),
    ],
)
def test_a_batch_is_tried_before_every_run(refused, devkit, option, parts):
    refused([option.partition("=")[0], *parts], *train(devkit, option))


def test_losses_that_are_not_finite_are_named(refused, devkit):
    """Widths are divided by a standard deviation of 0: the box loss is infinite, and nothing before it."""
    refused(["loss_bbox = ", "not finite", "coders"], *train(devkit, f"{CODER}.target_stds=[0,0,0,0]"))


def test_gradients_that_are_accumulated_are_stepped_too(refused, devkit):
    """A rate of 1e30 leaves weights finite in float32, and no loss."""
    parts = ["after the first step", f"{LR} = 1e+30", "too high"]
    refused(parts, *train(devkit, f"{LR}=1e30", "optim_wrapper.accumulative_counts=50"))


def test_a_checkpoint_with_nan(refused, devkit, tmp_path):
    path = tmp_path / "broken.pth"
    weight = torch.zeros(8, 3, 7, 7)
    weight[0, 0, 0, 0] = torch.nan
    torch.save({"state_dict": {"backbone.conv1.weight": weight}}, path)
    refused(
        [str(path), "1 of the 1176 numbers of backbone.conv1.weight", "earlier checkpoint"],
        *train(devkit, f"load_from={path}"),
    )


def test_a_list_without_broken_images_is_not_written_before_the_run_begins(refused, sample, tmp_path):
    devkit = small_devkit(sample, tmp_path / "VOCdevkit")
    image = next((devkit / "VOC2007" / "JPEGImages").iterdir())
    image.write_bytes(image.read_bytes()[:-200])
    refused("custom_hooks.0", *train(devkit, "skip_broken=True", "custom_hooks.0.x=1"))


def test_a_skipping_guard_may_pass_over_one_batch():
    """The second batch decides where a hook would go on after the first."""
    from cvplugins.openmmlab.run.first_batch import try_batches
    from cvplugins.openmmlab.run.first_step import NotFiniteError

    def step(batch):
        if batch == "bad":
            raise NotFiniteError("loss = nan")

    try_batches(step, ["bad", "good"])
    with pytest.raises(NotFiniteError):
        try_batches(step, ["bad", "bad"])
    with pytest.raises(NotFiniteError):
        try_batches(step, ["bad"])


ITERATIONS = """
train_cfg = dict(_delete_=True, type="IterBasedTrainLoop", max_iters=4, val_interval=2)
param_scheduler, log_processor = [], dict(by_epoch=False)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=2))
custom_hooks = [dict(type="cvplugins.NonFiniteGuardHook", policy="skip"), dict(type="EMAHook")]
optim_wrapper = dict(accumulative_counts=3)
"""
WITHOUT_VALIDATION = """
val_cfg = val_dataloader = val_evaluator = None
train_cfg = dict(_delete_=True, type="EpochBasedTrainLoop", max_epochs=1)
default_hooks = dict(checkpoint=dict(save_best=None))
custom_hooks = [dict(type="cvplugins.OptimizerSwitchHook", optimizer=dict(type="SGD", lr=0.001), at=3)]
"""


@pytest.mark.parametrize("changes", [ITERATIONS, WITHOUT_VALIDATION])
def test_the_trial_takes_what_trains(tool, root, devkit, tmp_path, changes):
    (tmp_path / "own.py").write_text(f"_base_ = {str(root / CONFIG)!r}\n{changes}")
    code, answer, errors = tool("train", tmp_path / "own.py", "--dry-run", "--cfg-options", f"data_root={devkit}")
    assert (code, errors) == (0, [])
    assert answer[0].endswith("are fine")
