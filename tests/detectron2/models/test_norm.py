"""The normalisation policy on real models of Detectron2; what became of every layer, and that it computes the same."""

import logging

import pytest
import torch
from small_detectron2 import batch, losses_and_gradients, small_config

pytestmark = pytest.mark.detectron2


def model_with(norm, *rules, freeze_at=0):
    from detectron2.modeling import build_model

    from cvplugins.detectron2 import apply_norm_policy

    cfg = small_config("fpn", ours=False)
    cfg.MODEL.RESNETS.NORM = norm
    cfg.MODEL.FPN.NORM = norm
    cfg.MODEL.BACKBONE.FREEZE_AT = freeze_at
    cfg.CVPLUGINS.NORM.rules = list(rules)
    torch.manual_seed(0)
    model = build_model(cfg)
    return model, apply_norm_policy(cfg, model)


def kinds(model):
    from cvplugins.norm.conversion import is_batch_norm

    return {type(layer).__name__ for layer in model.modules() if is_batch_norm(layer)}


def test_without_rules_nothing_changes():
    model, summary = model_with("BN")
    assert summary is None
    assert kinds(model) == {"BatchNorm2d"}


def test_rules_by_name_and_the_table(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("detectron2"), "propagate", True)  # setup_logger turns it off
    with caplog.at_level("INFO", "detectron2"):
        model, summary = model_with(
            "BN", {"to": "FrozenBN", "names": ["backbone.bottom_up.*"]}, {"to": "SyncBN", "names": ["backbone.fpn_*"]}
        )
    frozen = [name for name in summary.converted if name.startswith("backbone.bottom_up.")]
    assert len(frozen) == 52  # a ResNet-50 whose first block needs no shortcut
    assert len(summary.converted) == 52 + 6  # one lateral and one output convolution for each of three levels
    assert not any(
        value.requires_grad for name, value in model.named_parameters() if ".bottom_up." in name and ".norm." in name
    )
    assert "cvplugins.FrozenBatchNorm" in caplog.text
    assert "backbone.bottom_up.stem.conv1.norm" in caplog.text


@pytest.mark.parametrize("norm", ["FrozenBN", "SyncBN", "nnSyncBN", "BN"])
@pytest.mark.parametrize("to", ["SyncBN", "FrozenBN", "BN"])
def test_the_layers_of_detectron2_are_known_and_compute_the_same(norm, to):
    """Oracle: the model as Detectron2 built it, in evaluation mode, where all kinds mean the same."""
    plain, _ = model_with(norm)
    model, summary = model_with(norm, {"to": to, "frozen": "convert"})
    assert len(summary.layers) == 58
    assert len(kinds(model)) == 1
    model.load_state_dict(plain.state_dict(), strict=False)
    images = torch.randn(1, 3, 64, 64)
    for expected, found in zip(
        plain.eval().backbone(images).values(), model.eval().backbone(images).values(), strict=True
    ):
        torch.testing.assert_close(found, expected)


def test_what_detectron2_freezes_stays_frozen():
    _, summary = model_with("BN", {"to": "SyncBN"}, freeze_at=2)
    # The stem and res2 with three blocks of three convolutions each.
    assert sum(reason == "frozen" for reason in summary.left.values()) == 10
    assert len(summary.converted) == 58 - 10


def test_a_converted_model_trains_and_a_checkpoint_of_the_plain_one_fits(tmp_path):
    from detectron2.checkpoint import DetectionCheckpointer

    plain, _ = model_with("FrozenBN")
    DetectionCheckpointer(plain, str(tmp_path)).save("plain")
    model, _ = model_with("FrozenBN", {"to": "GN", "frozen": "convert", "num_groups": 4})
    checkpoint = DetectionCheckpointer(model, str(tmp_path)).load(str(tmp_path / "plain.pth"))
    assert torch.equal(model.backbone.fpn_lateral3.weight, plain.backbone.fpn_lateral3.weight)
    assert not checkpoint.get("model")
    losses, gradients, _ = losses_and_gradients(model, batch())
    assert all(loss.isfinite() for loss in losses.values())
    assert "backbone.fpn_lateral3.weight" in gradients


def test_mistakes_are_found_up_front():
    from cvplugins.detectron2 import validate_cvplugins_config
    from cvplugins.errors import UserError

    cfg = small_config("fpn")
    cfg.CVPLUGINS.NORM.rules = [{"to": "SyncBatchNorm"}]
    with pytest.raises(UserError, match=r"CVPLUGINS\.NORM: rule 0: unknown to 'SyncBatchNorm'; use one of 'SyncBN'"):
        validate_cvplugins_config(cfg)


@pytest.mark.parametrize("norm", ["FrozenBN", "BN"])
def test_folding_into_the_convolutions_that_hold_them(norm):
    """Oracle: the same model unfolded."""
    from cvplugins.norm import bn_report, fuse_conv_bn

    model, _ = model_with(norm)
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if ".norm." in name and value.is_floating_point():
                value.uniform_(0.5, 1.5)
    assert len(bn_report(model).layers) == 58
    model.eval()
    images = torch.randn(1, 3, 64, 64)
    expected = model.backbone(images)
    report = fuse_conv_bn(model.backbone, images)
    assert len(report.folded) == 58
    for name, found in model.backbone(images).items():
        torch.testing.assert_close(found, expected[name], rtol=1e-4, atol=1e-4 * expected[name].abs().max().item())
