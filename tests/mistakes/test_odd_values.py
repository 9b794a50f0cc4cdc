"""Values that every constructor takes, and with which a run trains otherwise than it reads, or dies later.

The oracle is the code that reads them, named beside each group; the config's own values and those beside REFUSED pass.
"""

import copy

import pytest
from torch import nn

RCNN, RPN = "model.train_cfg.rcnn", "model.train_cfg.rpn"
TESTED = "model.test_cfg.rcnn"
PARAMWISE = "optim_wrapper.paramwise_cfg"

REFUSED = [
    # A word is true: `if by_epoch` in mmengine's loops and hooks, `if shuffle` in its samplers.
    ("train_cfg.by_epoch=maybe", "expected True or False"),
    ("resume=maybe", "expected True or False"),
    ("skip_broken=maybe", "expected True or False"),
    ("randomness.deterministic=maybe", "expected True or False"),
    ("env_cfg.cudnn_benchmark=off", "expected True or False"),
    ("train_dataloader.persistent_workers=maybe", "expected True or False"),
    ("train_dataloader.drop_last=no", "expected True or False"),
    ("train_dataloader.sampler.shuffle=maybe", "DefaultSampler expects True or False; its default is True"),
    ("param_scheduler.0.by_epoch=maybe", "LinearLR expects True or False"),
    ("default_hooks.checkpoint.by_epoch=maybe", "expects True or False"),
    ("model.backbone.norm_eval=maybe", "ResNet expects True or False"),
    ("optim_wrapper.optimizer.amsgrad=maybe", "AdamW expects True or False"),
    ("optim_wrapper.optimizer.weight_decay=x", "AdamW expects a number"),
    ("default_hooks.logger.interval_exp_name=often", "LoggerHook expects a number"),
    ("optim_wrapper.optimizer.lr=True", "expected a number"),
    ("optim_wrapper.optimizer.eps=True", "AdamW expects a number"),
    # mmengine/optim/scheduler/param_scheduler.py
    ("param_scheduler.1.milestones=[-3]", "-3 is never reached"),
    ("param_scheduler.1.milestones=[8,x]", "expected a list such as"),
    ("param_scheduler.1.gamma=-1", "0 or more"),
    ("param_scheduler.1.gamma=x", "0 or more"),
    ("param_scheduler.0.begin=-5", "0 or more"),
    ("param_scheduler.0.end=x", "a number above begin"),
    ("param_scheduler=[7]", "param_scheduler.0 = 7: expected a schedule"),
    ("param_scheduler.0.convert_to_iter_based=maybe", "expected True or False"),
    # torch.nn.utils.clip_grad_norm_, at the first step
    ("optim_wrapper.clip_grad.max_norm=x", "a number above 0"),
    ("optim_wrapper.clip_grad.type=nrom && optim_wrapper.clip_grad.max_norm=1", "did you mean norm?"),
    # torch/utils/data/dataloader.py, of which the workers begin with the first batch
    ("train_dataloader.batch_size=True", "positive whole number"),
    ("train_dataloader.batch_size=2.5", "positive whole number"),
    ("train_dataloader.num_workers=1.5", "non-negative whole number"),
    ("train_dataloader.prefetch_factor=0", "positive whole number"),
    ("val_dataloader.persistent_workers=True && val_dataloader.num_workers=0", "no workers to persist"),
    ("val_evaluator=5", "expected a metric"),
    ("val_dataloader.dataset.metainfo=5", "expected a dict"),
    ("val_dataloader.dataset.data_prefix=x", "expected a dict"),
    ("val_evaluator.collect_device=gpuu", "did you mean gpu?"),
    # mmengine/runner/priority.py and Runner.register_hook
    ("custom_hooks=[5]", "custom_hooks.0 = 5: expected a hook"),
    ("default_hooks.param_scheduler=None", "no schedule of param_scheduler takes a step"),
    ("default_hooks.checkpoint.out_dir=5", "expected a path"),
    ("custom_hooks.0.priority=SOON", "VERY_HIGH"),
    ("custom_hooks.0.priority=NORMLA", "did you mean NORMAL"),
    ("custom_hooks.0.priority=200", "from 0 to 100"),
    # mmdet's samplers, assigners and bbox_nms.py; mmcv/ops/nms.py
    (f"{RPN}.sampler.num=-1", "1 or more"),
    (f"{RPN}.sampler.num=2.5", "1 or more"),
    (f"{RCNN}.sampler.pos_fraction=2", "from 0 to 1"),
    (f"{RCNN}.sampler.neg_pos_ub=-7", "no bound"),
    (f"{RCNN}.assigner.pos_iou_thr=-0.5", "from 0 to 1"),
    (f"{RCNN}.assigner.neg_iou_thr=(0.1, 7)", "from 0 to 1"),
    (f"{RPN}.pos_weight=x", "a number"),
    ("model.data_preprocessor.pad_size_divisor=-32", "1 or more"),
    (f"{TESTED}.score_thr=abc", "a number"),
    (f"{TESTED}.nms.iou_threshold=-1", "from 0 to 1"),
    (f"{TESTED}.nms.type=softnms", "did you mean soft_nms?"),
    (f"{TESTED}.max_per_img=-3", "-1 keeps all"),
    ("model.roi_head.bbox_head.loss_cls.loss_weight=-1.0", "0 or more"),
    # mmengine/optim/optimizer/default_constructor.py
    (f"{PARAMWISE}.foo=0", "it has custom_keys, bias_decay_mult"),
    (f"{PARAMWISE}.decay_mult=0", "reads no such key"),
    (f"{PARAMWISE}.norm_decay=0", "did you mean norm_decay_mult?"),
    (f"{PARAMWISE}.bias_lr_mult=-2", "0 or more"),
    (f"{PARAMWISE}.custom_keys.backbone.lr_mlt=0.1", "did you mean lr_mult?"),
    (f"{PARAMWISE}.custom_keys.backbone.lr_mult=-0.1", "0 or more"),
]
# What looks odd and trains correctly.
PASSING = [
    "param_scheduler.1.milestones=[11, 8]",  # they are counted, in no order
    "param_scheduler.1.gamma=1",
    "param_scheduler.1.milestones=[99]",
    "train_dataloader.num_workers=0",
    "train_dataloader.timeout=2.5",
    "train_dataloader.batch_sampler=None",
    "default_hooks.param_scheduler=None && param_scheduler=None",
    "custom_hooks.0.priority=very_low",
    "custom_hooks.0.priority=60",
    "val_evaluator.collect_device=gpu",
    f"{TESTED}.max_per_img=-1",
    f"{TESTED}.nms.type=soft_nms",
    f"{TESTED}.score_thr=2.0",
    f"{RCNN}.assigner.ignore_iof_thr=-1",
    f"{RCNN}.assigner.neg_iou_thr=(0.1, 0.5)",
    f"{PARAMWISE}.custom_keys.absolute_pos_embed.decay_mult=0",
    f"{PARAMWISE}.custom_keys.backbone.momentum=0.5",
    "model.neck.add_extra_convs=on_input",  # bool or word
    "randomness.deterministic=1",
    "val_dataloader.sampler=None",  # torch's own
]


@pytest.fixture(scope="module")
def config(root):
    from cvplugins.openmmlab.run.config import load_config

    return load_config(root / "tests" / "integration" / "tiny.py")


@pytest.fixture(scope="module")
def check(config):
    from mmengine.registry import init_default_scope

    from cvplugins.openmmlab.run.head_values import check_head_values
    from cvplugins.openmmlab.run.option_types import check_option_types
    from cvplugins.openmmlab.run.options import parse_options
    from cvplugins.openmmlab.run.paramwise_checks import check_paramwise
    from cvplugins.openmmlab.run.values import check_values

    init_default_scope("mmdet")
    model = nn.ModuleDict({"backbone": nn.Conv2d(3, 8, 3), "neck": nn.Conv2d(8, 8, 1)})

    def _check(option):
        cfg = copy.deepcopy(config)
        cfg.merge_from_dict(parse_options(option.split(" && ")))
        check_values(cfg)
        check_option_types(cfg)
        check_head_values(cfg)
        check_paramwise(cfg, model)

    return _check


@pytest.mark.openmmlab
def test_odd_values_are_named_with_their_keys(check):
    from cvplugins.errors import UserError

    for option, said in REFUSED:
        with pytest.raises(UserError) as caught:
            check(option)
        key = option.partition("=")[0]
        assert key in str(caught.value)
        assert said in str(caught.value), option


@pytest.mark.openmmlab
def test_a_name_that_no_parameter_has(check):
    """The constructor asks whether ``custom_keys``' names are in those of parameters; a misspelt one never is."""
    from cvplugins.errors import UserError

    with pytest.raises(UserError, match=r"custom_keys\.bakcbone: no parameter .* did you mean backbone\?"):
        check(f"{PARAMWISE}.custom_keys.bakcbone.lr_mult=0.1")


@pytest.mark.openmmlab
def test_what_trains_correctly_passes(check):
    for option in PASSING:
        check(option)


@pytest.mark.openmmlab
@pytest.mark.parametrize(
    ("option", "parts"),
    [
        ("model.backbone.norm_cfg.type=BNN", ["no registry of layers has it", "did you mean BN"]),
        ("default_hooks.checkpoint.save_best=mAPP", ["'mAPP', which no validation of this config gives"]),
        ("custom_hooks.0=5", ["custom_hooks.0.KEY"]),
        ("optim_wrapper.type=AmpOptimWrapper", ["only available training on gpu"]),
        ("train_dataloader.prefetch_factor=0", ["positive whole number"]),
        ("model.rpn_head.anchor_generator.ratios=[-1.0]", ["anchor [nan, nan", "above 0"]),
    ],
)
def test_the_key_that_was_written_is_blamed(refused, sample, option, parts):
    command = ["--cfg-options", f"data_root={sample}", option]
    refused([option.partition("=")[0], *parts], "train", "tests/integration/tiny.py", *command)
