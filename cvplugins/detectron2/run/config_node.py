"""The node ``cfg.CVPLUGINS``: losses, hooks, what becomes of the norms, and the keys of a run."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY, ROI_HEADS_REGISTRY, ROI_MASK_HEAD_REGISTRY
from detectron2.modeling.meta_arch import ProposalNetwork, RetinaNet, SemanticSegmentor
from detectron2.modeling.proposal_generator.build import PROPOSAL_GENERATOR_REGISTRY
from detectron2.utils.registry import Registry

from cvplugins.detectron2.hooks.named import build_cvplugins_hooks
from cvplugins.detectron2.mask2former.config import is_mask2former, validate_mask2former_config
from cvplugins.detectron2.models.head_losses import configured
from cvplugins.detectron2.models.losses import MASK2FORMER_PLACES, PLACES, DetectorLoss, SigmoidClassLoss
from cvplugins.detectron2.models.mask_head import CvpluginsMaskRCNNConvUpsampleHead
from cvplugins.detectron2.models.norm import norm_rules
from cvplugins.detectron2.models.retinanet import CvpluginsRetinaNet
from cvplugins.detectron2.models.roi_heads import (
    CvpluginsCascadeROIHeads,
    CvpluginsRes5ROIHeads,
    CvpluginsStandardROIHeads,
)
from cvplugins.detectron2.models.rpn import CvpluginsRPN
from cvplugins.errors import UserError

from .run_node import add_run_config, validate_run_config

__all__ = ["add_cvplugins_config", "validate_cvplugins_config"]

NODES = ("LOSSES", "HOOKS", "NORM", "DATA", "TRAIN", "EVALUATORS", "MASK2FORMER")  # the last one where it is used

BOX_HEADS = (CvpluginsStandardROIHeads, CvpluginsRes5ROIHeads, CvpluginsCascadeROIHeads)

# Which places models have; GeneralizedRCNN, PanopticFPN and those of users have all of detectors.
PLACES_OF_MODELS = ((RetinaNet, ("CLS", "BOX_REG")), (ProposalNetwork, ("RPN_CLS", "RPN_LOC")), (SemanticSegmentor, ()))


def add_cvplugins_config(cfg: CfgNode) -> None:
    """Add the node ``CVPLUGINS``; nothing else changes.

    It has an empty entry for each place of a loss (``LOSSES``), an empty list of hooks (``HOOKS``, see
    :func:`cvplugins.detectron2.build_cvplugins_hooks`) and a policy without rules for the norms (``NORM``, see
    :func:`cvplugins.detectron2.apply_norm_policy`). An entry is the config that OpenMMLab takes,
    ``{type: FocalLoss, gamma: 2.0}``; a loss with an empty ``type`` is Detectron2's own. What is null in it counts as
    not given. Heads that look there are chosen by their names, see :func:`validate_cvplugins_config`. ``DATA``,
    ``TRAIN`` and ``EVALUATORS`` are those of :func:`cvplugins.detectron2.run.run_node.add_run_config`.

    Args:
        cfg: Detectron2's config; changed.

    Example::

        cfg = get_cfg()
        add_cvplugins_config(cfg)
        cfg.MODEL.ROI_HEADS.NAME = "CvpluginsStandardROIHeads"
        cfg.CVPLUGINS.LOSSES.CLS.update(type="FocalLoss", gamma=2.0)
        validate_cvplugins_config(cfg)
    """
    # With unknown keys allowed: validation names the accepted ones, which yacs does not. The empty type is there for
    # the command line, where yacs changes only what exists.
    cfg.CVPLUGINS = CfgNode(new_allowed=True)
    cfg.CVPLUGINS.LOSSES = CfgNode(new_allowed=True)
    for place in [each for each in PLACES if each not in MASK2FORMER_PLACES]:
        cfg.CVPLUGINS.LOSSES[place] = CfgNode({"type": ""}, new_allowed=True)
    cfg.CVPLUGINS.HOOKS = []
    cfg.CVPLUGINS.NORM = CfgNode({"rules": []}, new_allowed=True)
    add_run_config(cfg.CVPLUGINS)


def validate_cvplugins_config(cfg: CfgNode) -> None:
    """Find mistakes in ``cfg.CVPLUGINS`` before any work: names, options, and losses that no head would compute.

    Args:
        cfg: A config that :func:`add_cvplugins_config` was called with.

    Raises:
        UserError: What is wrong, and what is accepted.
    """
    unknown = sorted(set(cfg.get("CVPLUGINS", {})) - set(NODES))
    if unknown:
        raise UserError(f"CVPLUGINS has no key {', '.join(unknown)}; it has {', '.join(NODES)}")
    build_cvplugins_hooks(cfg)
    norm_rules(cfg)
    if "TRAIN" in cfg.get("CVPLUGINS", {}):
        validate_run_config(cfg.CVPLUGINS)
    if is_mask2former(cfg):
        validate_mask2former_config(cfg)
    for place in PLACES:
        entry = configured(cfg, place)
        try:
            loss = _kind(cfg, place).of(entry)
            if loss is not None:
                _check_head(cfg, place)
                loss.try_out(_num_classes(cfg))
        except UserError as error:
            raise UserError(f"CVPLUGINS.LOSSES.{place}: {error}") from error


def _num_classes(cfg: CfgNode) -> int:
    if is_mask2former(cfg):
        return cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    return cfg.MODEL.RETINANET.NUM_CLASSES if _dense(cfg) else cfg.MODEL.ROI_HEADS.NUM_CLASSES


def _kind(cfg: CfgNode, place: str) -> type[DetectorLoss]:
    return SigmoidClassLoss if place == "CLS" and _dense(cfg) else PLACES[place]


def _check_head(cfg: CfgNode, place: str) -> None:
    """Raise unless the model has a head that computes the loss in this place."""
    model = cfg.MODEL
    places = _places(cfg)
    if place not in places:
        raise UserError(f"{model.META_ARCHITECTURE} has no such head; its places are {' and '.join(places) or 'none'}")
    if place in MASK2FORMER_PLACES:
        from cvplugins.detectron2.mask2former.model import CvpluginsMaskFormer

        _check_name("MODEL.META_ARCHITECTURE", META_ARCH_REGISTRY, model.META_ARCHITECTURE, (CvpluginsMaskFormer,))
    elif _dense(cfg):
        _check_name("MODEL.META_ARCHITECTURE", META_ARCH_REGISTRY, model.META_ARCHITECTURE, (CvpluginsRetinaNet,))
    elif place in ("CLS", "BOX_REG"):
        _check_name("MODEL.ROI_HEADS.NAME", ROI_HEADS_REGISTRY, model.ROI_HEADS.NAME, BOX_HEADS)
        if place == "CLS" and model.ROI_BOX_HEAD.USE_SIGMOID_CE:  # which USE_FED_LOSS needs
            raise UserError("MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE names another loss; set it to False")
    elif place == "MASK":
        if not model.MASK_ON:
            raise UserError("the model has no mask head; set MODEL.MASK_ON to True")
        heads = (CvpluginsMaskRCNNConvUpsampleHead,)
        _check_name("MODEL.ROI_MASK_HEAD.NAME", ROI_MASK_HEAD_REGISTRY, model.ROI_MASK_HEAD.NAME, heads)
    else:
        name = model.PROPOSAL_GENERATOR.NAME
        _check_name("MODEL.PROPOSAL_GENERATOR.NAME", PROPOSAL_GENERATOR_REGISTRY, name, (CvpluginsRPN,))


def _places(cfg: CfgNode) -> tuple[str, ...]:
    if is_mask2former(cfg):
        return MASK2FORMER_PLACES
    name = cfg.MODEL.META_ARCHITECTURE
    for model, places in PLACES_OF_MODELS:
        if _is_made_from(META_ARCH_REGISTRY, name, (model,)):
            return places
    return tuple(place for place in PLACES if place not in MASK2FORMER_PLACES)


def _dense(cfg: CfgNode) -> bool:
    return _is_made_from(META_ARCH_REGISTRY, cfg.MODEL.META_ARCHITECTURE, (RetinaNet,))


def _check_name(key: str, registry: Registry, name: str, heads: tuple[type, ...]) -> None:
    if not _is_made_from(registry, name, heads):
        raise UserError(f"{key} is {name!r}, which takes no loss; use {' or '.join(each.__name__ for each in heads)}")


def _is_made_from(registry: Registry, name: str, classes: tuple[type, ...]) -> bool:
    """Return whether what is registered under a name is one of the classes or a subclass; functions may be too."""
    found = registry.get(name) if name in registry else None
    return isinstance(found, type) and issubclass(found, classes)
