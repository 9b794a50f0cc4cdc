"""The original Mask2Former, tiny and with random weights, and three images to train it on, one without objects."""

import numpy as np
import torch

SIZE = 64
CLASSES = 5


def small_mask2former(*, scenes=None, architecture="CvpluginsMaskFormer", **losses):
    """The config of the sample shrunk further, with losses in some places; trained on scenes if there are some."""
    from pathlib import Path

    from detectron2.config import CfgNode

    from cvplugins.detectron2 import load_config

    cfg = load_config(Path(__file__).parents[1] / "configs/detectron2/ade20k_mask2former_sample.yaml")
    cfg.CVPLUGINS.HOOKS = []
    model = cfg.MODEL
    model.DEVICE = "cpu"
    model.META_ARCHITECTURE = architecture
    model.RESNETS.update(STEM_OUT_CHANNELS=8, RES2_OUT_CHANNELS=8, WIDTH_PER_GROUP=4)
    model.SEM_SEG_HEAD.update(CONVS_DIM=32, MASK_DIM=32)
    model.MASK_FORMER.update(HIDDEN_DIM=32, NUM_OBJECT_QUERIES=8, NHEADS=2, DIM_FEEDFORWARD=32, DEC_LAYERS=3)
    model.MASK_FORMER.TRAIN_NUM_POINTS = 64
    cfg.INPUT.update(MIN_SIZE_TRAIN=[SIZE], MIN_SIZE_TEST=SIZE, SIZE_DIVISIBILITY=SIZE)
    cfg.INPUT.CROP.SIZE = [SIZE, SIZE]
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.SOLVER.update(IMS_PER_BATCH=2, MAX_ITER=4, CHECKPOINT_PERIOD=2)
    cfg.TEST.EVAL_PERIOD = 0
    if scenes is None:
        model.SEM_SEG_HEAD.NUM_CLASSES = CLASSES
    else:
        cfg.CVPLUGINS.DATA.ROOT = str(scenes)
    for place, loss in losses.items():
        cfg.CVPLUGINS.LOSSES[place].update(CfgNode(loss))
    return cfg


def batch():
    """Three images with two objects, one and none."""
    from detectron2.structures import Instances

    generator = np.random.default_rng(1)
    records = []
    for labels in ([0, 3], [4], []):
        instances = Instances((SIZE, SIZE))
        instances.gt_classes = torch.tensor(labels, dtype=torch.int64)
        instances.gt_masks = torch.zeros(len(labels), SIZE, SIZE, dtype=torch.bool)
        for index in range(len(labels)):
            instances.gt_masks[index, 8 + 24 * index : 40 + 24 * index, 10:50] = True
        image = torch.from_numpy(generator.integers(0, 255, (3, SIZE, SIZE), dtype=np.uint8))
        records.append({"image": image, "instances": instances, "height": SIZE, "width": SIZE})
    return records
