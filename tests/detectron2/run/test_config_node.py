"""The node of the config: in YAML and in Python, and its mistakes, found before any work."""

import pytest
from small_detectron2 import small_config

pytestmark = pytest.mark.detectron2


def test_a_plain_config_stays_as_it_was():
    from detectron2.config import get_cfg

    from cvplugins.detectron2 import add_cvplugins_config, validate_cvplugins_config

    cfg = get_cfg()
    add_cvplugins_config(cfg)
    validate_cvplugins_config(cfg)
    assert set(cfg.CVPLUGINS.LOSSES) == {"CLS", "BOX_REG", "RPN_CLS", "RPN_LOC", "MASK"}
    del cfg["CVPLUGINS"]
    assert cfg == get_cfg()


def test_losses_in_yaml(tmp_path):
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model

    from cvplugins.detectron2 import add_cvplugins_config, validate_cvplugins_config

    cfg = small_config("fpn")
    base, derived = tmp_path / "base.yaml", tmp_path / "derived.yaml"
    base.write_text(cfg.dump())
    derived.write_text("""\
_BASE_: base.yaml
CVPLUGINS:
  LOSSES:
    CLS: {type: OHEMLoss, keep_ratio: 0.5, loss: {type: FocalLoss, gamma: 1.5, alpha: [1.0, 1.0, 1.0, 0.5]}}
    BOX_REG: {type: cvplugins.BoxIoULoss, kind: ciou, loss_weight: 2.0}
""")
    again = get_cfg()
    add_cvplugins_config(again)
    again.merge_from_file(str(derived))
    again.merge_from_list(["CVPLUGINS.LOSSES.BOX_REG.kind", "siou"])
    again.freeze()
    validate_cvplugins_config(again)
    predictor = build_model(again.clone()).roi_heads.box_predictor
    assert predictor.cls_loss.loss.loss.gamma == 1.5
    assert predictor.box_loss.loss.kind == "siou"
    assert predictor.box_loss.loss_weight == 2.0
    copy = get_cfg()
    add_cvplugins_config(copy)
    copy.merge_from_other_cfg(type(again).load_cfg(again.dump()))
    assert copy == again


def test_a_derived_config_changes_the_loss_of_its_base(tmp_path):
    """What the base says of another loss is taken away by null, for YAML has no other way."""
    from detectron2.modeling import build_model

    from cvplugins.detectron2 import validate_cvplugins_config
    from cvplugins.errors import UserError

    (tmp_path / "base.yaml").write_text(small_config("fpn", CLS={"type": "FocalLoss", "gamma": 1.5}).dump())
    for text, expected in (
        ("{type: CrossEntropyLoss, label_smoothing: 0.1, gamma: null}", "CrossEntropyLoss"),
        ("{type: '', gamma: null}", None),
        ("{type: CrossEntropyLoss}", "CrossEntropyLoss has no option gamma"),
        ("{type: ''}", "CVPLUGINS.LOSSES.CLS: gamma without a loss: name it in type, or set what a base left"),
    ):
        (tmp_path / "derived.yaml").write_text(f"_BASE_: base.yaml\nCVPLUGINS: {{LOSSES: {{CLS: {text}}}}}")
        cfg = small_config("fpn")
        cfg.merge_from_file(str(tmp_path / "derived.yaml"))
        if expected and " " in expected:
            with pytest.raises(UserError, match=expected):
                validate_cvplugins_config(cfg)
            continue
        validate_cvplugins_config(cfg)
        loss = build_model(cfg).roi_heads.box_predictor.cls_loss
        assert (loss and type(loss.loss).__name__) == expected


def test_a_loss_on_the_command_line():
    from cvplugins.detectron2 import validate_cvplugins_config

    cfg = small_config("fpn")
    cfg.merge_from_list(["CVPLUGINS.LOSSES.CLS.type", "FocalLoss"])
    validate_cvplugins_config(cfg)
    assert cfg.CVPLUGINS.LOSSES.CLS == {"type": "FocalLoss"}


FOCAL = {"type": "FocalLoss"}


@pytest.mark.parametrize(
    ("change", "losses", "message"),
    [
        ({}, {"CLASS": FOCAL}, "^CVPLUGINS.LOSSES has no place CLASS; it has CLS, BOX_REG, RPN_CLS, RPN_LOC, MASK"),
        ({}, {"CLS": {"type": "FocalLos"}}, "CVPLUGINS.LOSSES.CLS: no loss 'FocalLos' here; use BCELoss, Comp"),
        ({}, {"CLS": {"gamma": 2.0}}, "CVPLUGINS.LOSSES.CLS: gamma without a loss: name it in type"),
        ({}, {"CLS": {**FOCAL, "gama": 1.0}}, "CVPLUGINS.LOSSES.CLS: FocalLoss has no option gama; it has use_sig"),
        ({}, {"CLS": {"type": "L1Loss"}}, "CVPLUGINS.LOSSES.CLS: no loss 'L1Loss' here; use BCELoss"),
        ({}, {"RPN_CLS": {"type": "BoxIoULoss"}}, "CVPLUGINS.LOSSES.RPN_CLS: no loss 'BoxIoULoss' here"),
        ({}, {"BOX_REG": FOCAL}, "CVPLUGINS.LOSSES.BOX_REG: no loss 'FocalLoss' here; use BoxIoULoss"),
        ({}, {"RPN_CLS": FOCAL}, "CVPLUGINS.LOSSES.RPN_CLS: FocalLoss reads its scores as a softmax"),
        (
            {},
            {"CLS": {**FOCAL, "alpha": [1.0, 2.0]}},
            "CVPLUGINS.LOSSES.CLS: FocalLoss: alpha holds 2 numbers; use 1 or 4",
        ),
        (
            {"MODEL.ROI_HEADS.NAME": "StandardROIHeads"},
            {"CLS": FOCAL},
            "NAME is 'StandardROIHeads', which takes no loss",
        ),
        ({"MODEL.PROPOSAL_GENERATOR.NAME": "RPN"}, {"RPN_LOC": {"type": "L1Loss"}}, "is 'RPN', .*use CvpluginsRPN"),
        ({}, {"MASK": {"type": "BCELoss"}}, "CVPLUGINS.LOSSES.MASK: the model has no mask head; set MODEL.MASK_ON"),
        ({"MODEL.MASK_ON": True}, {"MASK": {"type": "BCELoss"}}, "use CvpluginsMaskRCNNConvUpsampleHead"),
        (
            {"MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE": True},
            {"CLS": FOCAL},
            "USE_SIGMOID_CE names another loss; set it to False",
        ),
        ({"MODEL.META_ARCHITECTURE": "RetinaNet"}, {"CLS": {"type": "BCELoss"}}, "use CvpluginsRetinaNet"),
        ({"MODEL.META_ARCHITECTURE": "CvpluginsRetinaNet"}, {"CLS": FOCAL}, "reads its scores as a softmax"),
        (
            {"MODEL.META_ARCHITECTURE": "CvpluginsRetinaNet"},
            {"CLS": {"type": "CrossEntropyLoss"}},
            "no loss 'CrossEntropyLoss' here; use BCELoss, CompositeLoss, FocalLoss",
        ),
        (
            {"MODEL.META_ARCHITECTURE": "CvpluginsRetinaNet"},
            {"RPN_LOC": {"type": "L1Loss"}},
            "CvpluginsRetinaNet has no such head; its places are CLS and BOX_REG",
        ),
        ({"MODEL.META_ARCHITECTURE": "ProposalNetwork"}, {"CLS": FOCAL}, "places are RPN_CLS and RPN_LOC"),
        ({"MODEL.META_ARCHITECTURE": "SemanticSegmentor"}, {"CLS": FOCAL}, "its places are none"),
    ],
)
def test_a_mistake_is_one_line_with_what_is_accepted(change, losses, message):
    from cvplugins.detectron2 import validate_cvplugins_config
    from cvplugins.errors import UserError

    cfg = small_config("fpn", **losses)
    cfg.merge_from_list([each for pair in change.items() for each in pair])
    with pytest.raises(UserError, match=message) as caught:
        validate_cvplugins_config(cfg)
    assert "\n" not in str(caught.value)


def test_other_keys_are_named():
    from cvplugins.detectron2 import validate_cvplugins_config
    from cvplugins.errors import UserError

    cfg = small_config("fpn")
    cfg.CVPLUGINS.LOSES = "FocalLoss"
    with pytest.raises(UserError, match="CVPLUGINS has no key LOSES; it has LOSSES"):
        validate_cvplugins_config(cfg)


def test_an_entry_that_is_no_dict_is_named():
    from cvplugins.detectron2 import validate_cvplugins_config
    from cvplugins.errors import UserError

    cfg = small_config("fpn")
    cfg.CVPLUGINS.LOSSES.CLS = "FocalLoss"
    with pytest.raises(UserError, match=r"CLS: expected a loss such as .*, but got 'FocalLoss'"):
        validate_cvplugins_config(cfg)


def test_a_subclass_of_a_head_counts_as_one():
    from detectron2.modeling import ROI_HEADS_REGISTRY

    from cvplugins.detectron2 import CvpluginsStandardROIHeads, validate_cvplugins_config

    class OwnROIHeads(CvpluginsStandardROIHeads):
        pass

    ROI_HEADS_REGISTRY.register(OwnROIHeads)
    try:
        cfg = small_config("fpn", CLS=FOCAL)
        cfg.MODEL.ROI_HEADS.NAME = "OwnROIHeads"
        validate_cvplugins_config(cfg)
    finally:
        del ROI_HEADS_REGISTRY._obj_map["OwnROIHeads"]
