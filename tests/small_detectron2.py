"""Real models of Detectron2, small and with random weights, and two images to train them on."""

import torch

KINDS = ("fpn", "c4", "cascade", "mask", "retinanet")
HEADS = {"c4": "Res5ROIHeads", "cascade": "CascadeROIHeads"}
OURS = "Cvplugins"


def small_config(kind, ours=True, **losses):
    """The config of a model with heads of ours or of Detectron2, and losses in the places of ours."""
    from detectron2.config import CfgNode, get_cfg

    from cvplugins.detectron2 import add_cvplugins_config

    prefix = OURS if ours else ""
    cfg = get_cfg()
    add_cvplugins_config(cfg)
    model = cfg.MODEL
    model.DEVICE = "cpu"
    model.BACKBONE.FREEZE_AT = 0
    model.RESNETS.update(DEPTH=50, RES2_OUT_CHANNELS=8, STEM_OUT_CHANNELS=8, WIDTH_PER_GROUP=4)
    model.ANCHOR_GENERATOR.SIZES = [[16, 32]]
    model.PROPOSAL_GENERATOR.NAME = f"{prefix}RPN"
    model.RPN.update(BATCH_SIZE_PER_IMAGE=32, PRE_NMS_TOPK_TRAIN=50, POST_NMS_TOPK_TRAIN=20, POST_NMS_TOPK_TEST=20)
    model.ROI_HEADS.update(NAME=prefix + HEADS.get(kind, "StandardROIHeads"), NUM_CLASSES=3, BATCH_SIZE_PER_IMAGE=16)
    if kind == "c4":
        model.ROI_BOX_HEAD.POOLER_RESOLUTION = 4
    else:
        model.RESNETS.OUT_FEATURES = ["res3", "res4", "res5"]
        model.FPN.update(IN_FEATURES=["res3", "res4", "res5"], OUT_CHANNELS=8)
        model.BACKBONE.NAME = "build_resnet_fpn_backbone"
        model.RPN.IN_FEATURES = model.ROI_HEADS.IN_FEATURES = ["p3", "p4", "p5"]
        model.ROI_BOX_HEAD.update(NAME="FastRCNNConvFCHead", NUM_FC=1, FC_DIM=16, POOLER_RESOLUTION=4)
    model.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG = kind == "cascade"
    if kind == "mask":
        model.MASK_ON = True
        model.ROI_MASK_HEAD.update(
            NAME=f"{prefix}MaskRCNNConvUpsampleHead", NUM_CONV=1, CONV_DIM=8, POOLER_RESOLUTION=7
        )
    if kind == "retinanet":
        model.META_ARCHITECTURE = f"{prefix}RetinaNet"
        model.RETINANET.update(NUM_CLASSES=3, NUM_CONVS=1, IN_FEATURES=["p3", "p4", "p5"])
    for place, loss in losses.items():
        cfg.CVPLUGINS.LOSSES.setdefault(place, CfgNode(new_allowed=True)).update(CfgNode(loss))
    return cfg


def batch(empty=False):
    """Two images with an object or two each, or without any."""
    from detectron2.structures import Boxes, Instances, PolygonMasks

    generator = torch.Generator().manual_seed(1)
    records = []
    for boxes in ([[8.0, 8.0, 40.0, 40.0], [30.0, 20.0, 62.0, 50.0]], [[4.0, 20.0, 36.0, 60.0]]):
        boxes = [] if empty else boxes
        instances = Instances((64, 64))
        instances.gt_boxes = Boxes(torch.tensor(boxes).reshape(-1, 4))
        instances.gt_classes = torch.arange(len(boxes)) + 1
        instances.gt_masks = PolygonMasks([[[a, b, c, b, a, d]] for a, b, c, d in boxes])
        image = torch.randint(0, 255, (3, 64, 64), dtype=torch.uint8, generator=generator)
        records.append({"image": image, "instances": instances, "height": 64, "width": 64})
    return records


def losses_and_gradients(model, records, seed=0):
    """Return what a model computes in one step, with the same samples for the same seed."""
    from detectron2.utils.events import EventStorage

    torch.manual_seed(seed)
    model.zero_grad()
    # RetinaNet's compiled focal loss rounds in another way once it has been profiled.
    with EventStorage() as storage, torch.jit.optimized_execution(False):
        losses = model.train()(records)
        sum(losses.values()).backward()
    gradients = {name: each.grad for name, each in model.named_parameters() if each.grad is not None}
    return losses, gradients, storage.latest()
