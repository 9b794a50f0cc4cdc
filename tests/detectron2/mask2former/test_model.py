"""The original Mask2Former with our losses and our matching."""

import os
import sys
from pathlib import Path

import pytest
import torch
from small_detectron2 import losses_and_gradients
from small_mask2former import batch, small_mask2former

pytestmark = [pytest.mark.detectron2, pytest.mark.mask2former]

THEIRS = {
    "M2F_CLS": {"type": "CrossEntropyLoss"},
    "M2F_MASK": {"type": "BCELoss"},
    # 2 TP + 1 over P + T + 1, as mask2former/modeling/criterion.py has it
    "M2F_DICE": {"type": "DiceLoss", "mode": "binary", "smooth": 0.5},
}


@pytest.fixture(scope="module", autouse=True)
def project():
    """Make mask2former known, whichever test comes first."""
    from cvplugins.detectron2.mask2former.checkout import import_mask2former

    return import_mask2former()


def built(cfg):
    from detectron2.modeling import build_model

    torch.manual_seed(0)
    return build_model(cfg)


@pytest.fixture(scope="module")
def original():
    """Losses and gradients of the project's own model."""
    return losses_and_gradients(built(small_mask2former(architecture="MaskFormer")), batch())


def test_without_losses_of_ours_nothing_changes(original):
    losses, gradients, _ = losses_and_gradients(built(small_mask2former()), batch())
    assert losses.keys() == original[0].keys()
    assert all(torch.equal(losses[name], original[0][name]) for name in losses)
    assert gradients.keys() == original[1].keys()
    assert all(torch.equal(gradients[name], original[1][name]) for name in gradients)


@pytest.mark.parametrize("places", [["M2F_CLS"], ["M2F_MASK"], ["M2F_DICE"], [*THEIRS]], ids="-".join)
def test_the_same_loss_of_ours_gives_the_same(original, places):
    """Oracle: the project's criterion, in every decoder layer, with its weights and normalisers."""
    chosen = {place: THEIRS[place] for place in places}
    losses, gradients, _ = losses_and_gradients(built(small_mask2former(**chosen)), batch())
    assert losses.keys() == original[0].keys()
    for name in losses:
        torch.testing.assert_close(losses[name], original[0][name], rtol=1e-5, atol=1e-6)
    # Batch norms of a few numbers each magnify what is rounded.
    assert all((gradients[name] - each).norm() <= 1e-3 * each.norm() + 1e-6 for name, each in original[1].items())


def test_a_loss_counts_in_every_layer(original):
    """Twice the weight gives twice the loss, in the last layer and in those before; the others stay."""
    doubled = {**THEIRS["M2F_DICE"], "loss_weight": 2.0}
    losses, _, _ = losses_and_gradients(built(small_mask2former(M2F_DICE=doubled)), batch())
    assert {name for name in losses if name.startswith("loss_dice")} == {"loss_dice", "loss_dice_0", "loss_dice_1"}
    for name, value in losses.items():
        factor = 2 if name.startswith("loss_dice") else 1
        torch.testing.assert_close(value, factor * original[0][name], rtol=1e-5, atol=1e-6)


def test_parts_of_a_composite_are_logged_for_the_last_layer():
    parts = {"bce": {"type": "BCELoss"}, "focal": {"type": "FocalLoss", "use_sigmoid": True}}
    cfg = small_mask2former(M2F_MASK={"type": "CompositeLoss", "losses": parts})
    losses, _, logged = losses_and_gradients(built(cfg), batch())
    total = logged["loss_mask.bce"][0] + logged["loss_mask.focal"][0]
    assert total * cfg.MODEL.MASK_FORMER.MASK_WEIGHT == pytest.approx(losses["loss_mask"].item(), rel=1e-5)


@pytest.mark.parametrize(
    ("losses", "architecture", "message"),
    [
        (
            {"M2F_CLS": {"type": "BCELoss"}},
            "CvpluginsMaskFormer",
            "M2F_CLS: no loss 'BCELoss' here; use CompositeLoss, CrossEntropyLoss",
        ),
        (
            {"M2F_CLS": {"type": "FocalLoss", "use_sigmoid": True}},
            "CvpluginsMaskFormer",
            "M2F_CLS: FocalLoss reads its scores as sigmoids",
        ),
        ({"M2F_DICE": {"type": "DiceLoss"}}, "CvpluginsMaskFormer", "M2F_DICE: DiceLoss reads its scores as a softmax"),
        ({"M2F_MASK": {"type": "BCELoss"}}, "MaskFormer", "'MaskFormer', which takes no loss; use CvpluginsMaskFormer"),
        ({"CLS": {"type": "FocalLoss"}}, "CvpluginsMaskFormer", "its places are M2F_CLS and M2F_MASK and M2F_DICE"),
        (
            {"M2F_CLS": {"type": "CrossEntropyLoss", "class_weight": [1.0, 2.0]}},
            "CvpluginsMaskFormer",
            "M2F_CLS: .*class_weight",
        ),
    ],
)
def test_losses_that_cannot_work_are_found_before_any_work(losses, architecture, message):
    from cvplugins.detectron2 import validate_cvplugins_config
    from cvplugins.errors import UserError

    with pytest.raises(UserError, match=message):
        validate_cvplugins_config(small_mask2former(architecture=architecture, **losses))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("CVPLUGINS.MASK2FORMER.REPLACE_COST", -1.0, "REPLACE_COST is -1.0; it must be above 0"),
        ("CVPLUGINS.TRAIN.OPTIMIZER.type", "AdamW", "Mask2Former has its own optimizer"),
        ("SOLVER.OPTIMIZER", "ADAM", "SOLVER.OPTIMIZER is 'ADAM'; Mask2Former takes ADAMW or SGD"),
    ],
)
def test_keys_that_cannot_work_are_found_before_any_work(key, value, message):
    from cvplugins.detectron2 import validate_cvplugins_config
    from cvplugins.errors import UserError

    cfg = small_mask2former()
    cfg.merge_from_list([key, value])
    with pytest.raises(UserError, match=message):
        validate_cvplugins_config(cfg)


def predictions(objects=(5, 0), queries=6):
    images = len(objects)
    generator = torch.Generator().manual_seed(3)
    outputs = {
        "pred_logits": torch.randn(images, queries, 4, generator=generator),
        "pred_masks": torch.randn(images, queries, 16, 16, generator=generator),
    }
    targets = [
        {
            "labels": torch.randint(0, 3, (count,), generator=generator),
            "masks": torch.rand(count, 32, 32, generator=generator) > 0.5,
        }
        for count in objects
    ]
    return outputs, targets


def matched(outputs, targets, original=False, **options):
    from mask2former.modeling.matcher import HungarianMatcher

    from cvplugins.detectron2.mask2former.matcher import CvpluginsMatcher

    torch.manual_seed(0)
    kind = HungarianMatcher if original else CvpluginsMatcher
    found = kind(cost_class=2.0, cost_mask=5.0, cost_dice=5.0, num_points=50, **options)(outputs, targets)
    return [[each.tolist() for each in pair] for pair in found]


@pytest.mark.parametrize("targets_at_once", [None, 1, 2, 9])
def test_pairs_are_those_of_the_original(targets_at_once):
    """Oracle: the project's matcher; also where objects come in chunks, and where there are none."""
    objects = (5, 0, *[4] * 30)  # so many that any other cost would give other pairs somewhere
    given = predictions(objects)
    ours = matched(*given, targets_at_once=targets_at_once)
    assert ours == matched(*given, original=True)
    assert [len(pair[0]) for pair in ours] == list(objects)


def test_a_cost_that_is_not_finite_is_named():
    from cvplugins.monitors import NonFiniteError

    outputs, targets = predictions()
    outputs["pred_logits"][0, 2] = float("nan")
    with pytest.raises(ValueError, match="invalid numeric entries"):
        matched(outputs, targets, original=True)
    with pytest.raises(NonFiniteError, match=r"image 0 of the batch.*class, 5 of 30 values \(predictions 2\)"):
        matched(outputs, targets)


def test_a_cost_that_is_not_finite_can_be_replaced():
    outputs, targets = predictions()
    outputs["pred_logits"][0, 2] = float("nan")
    (queries, objects), _ = matched(outputs, targets, replace_by=1e5)
    assert 2 not in queries  # the query that cannot be compared is the one of six that is left over
    assert sorted(objects) == [0, 1, 2, 3, 4]


def test_the_config_reaches_the_matcher():
    cfg = small_mask2former()
    cfg.CVPLUGINS.MASK2FORMER.update(REPLACE_COST=100.0, TARGETS_AT_ONCE=3)
    matcher = built(cfg).criterion.matcher
    assert (matcher.replace_by, matcher.targets_at_once, matcher.cost_class) == (100.0, 3, 2.0)


def test_the_optimizer_is_the_projects():
    """Oracle: the recipe; the backbone at a factor, no decay of norms and embeddings, gradients clipped as one."""
    from cvplugins.detectron2 import CvpluginsTrainer

    cfg = small_mask2former()
    cfg.SOLVER.BACKBONE_MULTIPLIER = 0.1
    model = built(cfg)
    optimizer = CvpluginsTrainer.build_optimizer(cfg, model)
    groups = {id(group["params"][0]): group for group in optimizer.param_groups}
    assert isinstance(optimizer, torch.optim.AdamW)
    for name, parameter in model.named_parameters():
        group = groups[id(parameter)]
        assert group["lr"] == pytest.approx(cfg.SOLVER.BASE_LR * (0.1 if name.startswith("backbone") else 1))
        if "query" in name or ".norm" in name:
            assert group["weight_decay"] == 0
        elif name.endswith("mask_embed.layers.0.weight"):
            assert group["weight_decay"] == 0.05
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    norm = torch.stack([parameter.grad.norm() for parameter in model.parameters()]).norm()
    assert norm.item() == pytest.approx(0.01, rel=1e-3)
    assert any(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def test_the_schedule_falls_to_zero_by_the_power():
    """Oracle: the formula of poly."""
    from cvplugins.detectron2 import CvpluginsTrainer

    cfg = small_mask2former()
    cfg.SOLVER.update(MAX_ITER=10, WARMUP_ITERS=0)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = CvpluginsTrainer.build_lr_scheduler(cfg, optimizer)
    for iteration in range(4):
        assert optimizer.param_groups[0]["lr"] == pytest.approx((1 - iteration / 10) ** 0.9)
        optimizer.step()
        scheduler.step()


def test_the_import_leaves_no_trace(project):
    from cvplugins.detectron2.mask2former.checkout import has_cuda_op

    root = os.environ["MASK2FORMER_ROOT"]
    assert Path(project.__file__).is_relative_to(root)
    assert root not in sys.path
    assert has_cuda_op() == (sys.modules.get("MultiScaleDeformableAttention") is not None)
    stand_in = sys.modules.get("detectron2.evaluation.fast_eval_api")
    assert stand_in is None or stand_in.__file__  # Detectron2's own file, if any


def test_a_checkout_that_is_not_there_says_how_to_get_it(tmp_path, monkeypatch):
    from cvplugins.detectron2.mask2former.checkout import find_mask2former, import_mask2former
    from cvplugins.errors import UserError

    with pytest.raises(UserError, match="is already imported from"):
        import_mask2former(tmp_path)
    with pytest.raises(
        UserError, match=r"is no checkout of Mask2Former.*git clone https://github.com/facebookresearch"
    ):
        find_mask2former(tmp_path)
    monkeypatch.delenv("MASK2FORMER_ROOT")
    monkeypatch.delitem(sys.modules, "mask2former")
    with pytest.raises(UserError, match=r"MASK2FORMER_ROOT or in CVPLUGINS.MASK2FORMER.ROOT: git clone"):
        find_mask2former()


def test_swin_is_built_from_the_config_too():
    cfg = small_mask2former()
    cfg.MODEL.BACKBONE.NAME = "D2SwinTransformer"
    cfg.MODEL.SWIN.update(EMBED_DIM=8, DEPTHS=[1, 1, 1, 1], NUM_HEADS=[1, 1, 1, 1], WINDOW_SIZE=4)
    losses, gradients, _ = losses_and_gradients(built(cfg), batch())
    assert all(loss.isfinite() for loss in losses.values())
    assert any(name.startswith("backbone.") for name in gradients)


def test_the_projects_attention_is_computed_by_ours():
    """Its Function alone: its layer would hide an error and compute without it. Oracle: its own formula in torch."""
    from mask2former.modeling.pixel_decoder.ops.functions import MSDeformAttnFunction, ms_deform_attn_func

    from cvplugins.detectron2.mask2former.checkout import has_cuda_op

    rand = torch.Generator().manual_seed(0)
    shapes, starts = torch.tensor([[4, 6], [2, 3]]), torch.tensor([0, 24])
    inputs = (
        torch.randn(2, 30, 2, 8, generator=rand),
        torch.rand(2, 5, 2, 2, 4, 2, generator=rand),
        torch.rand(2, 5, 2, 2, 4, generator=rand),
    )
    outer = torch.randn(2, 5, 16, generator=rand)
    device = "cuda" if has_cuda_op() else "cpu"  # the compiled op has nothing for a CPU
    value, places, weights = (each.to(device).requires_grad_() for each in inputs)
    shapes, starts, outer = shapes.to(device), starts.to(device), outer.to(device)
    found = MSDeformAttnFunction.apply(value, shapes, starts, places, weights, 128)
    expected = ms_deform_attn_func.ms_deform_attn_core_pytorch(value, shapes, places, weights)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    gradients = torch.autograd.grad(found, (value, places, weights), outer)
    for gradient, other in zip(gradients, torch.autograd.grad(expected, (value, places, weights), outer), strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-4, atol=1e-4)
