"""Memory of training Mask2Former, counted on the CPU without training: what a crop keeps for the backward pass.

OMP_NUM_THREADS=2 python benchmarks/mask2former_memory.py [--config configs/ade20k_mask2former_r50.py] [--crops 512 640]

- weights: parameters, gradients and AdamW's two moments, all float32: 16 bytes a parameter.
- kept: bytes that one image's forward pass keeps for its backward pass, in float32 and with autocast (bfloat16, which
  takes the same room as float16). Each storage counts once, parameters not at all.
- matching: the peak of one decoder layer's matching for one image, by the number of objects, all or 25 at once.
- points: the peak of sampling points and of the mask losses of one decoder layer, by the number of objects (all but the
  last of --objects).

The CPU has no kernel for deformable attention: mmcv's substitute in PyTorch keeps the sampled values, which the CUDA
kernel does not. They are left out: what `multi_scale_deformable_attn_pytorch` keeps is not counted.
"""

import argparse
import copy
import sys

import torch
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample
from torch.profiler import ProfilerActivity, profile

from cvplugins.openmmlab.run.config import load_config

MIB = 2**20


def build(config):
    """Build the model of a config with random weights."""
    model = copy.deepcopy(load_config(config).model)
    model.backbone.pop("init_cfg", None)
    init_default_scope("mmseg")
    return MODELS.build(model).train()


def batch(crop, classes=10):
    """Return one image whose label map holds some classes in stripes."""
    labels = torch.arange(crop).mul(classes).div(crop, rounding_mode="floor").expand(1, crop, crop).contiguous()
    sample = SegDataSample(gt_sem_seg=PixelData(data=labels), metainfo={"img_shape": (crop, crop)})
    return torch.randn(1, 3, crop, crop), [sample]


class Kept:
    """Counts the bytes that autograd keeps, each storage once."""

    def __init__(self, model):
        self.known = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        self.storages, self.counting = {}, True

    def __enter__(self):
        from mmcv.ops import multi_scale_deform_attn as module

        self.module, self.original = module, module.multi_scale_deformable_attn_pytorch
        module.multi_scale_deformable_attn_pytorch = self.substitute
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self.keep, lambda tensor: tensor)
        self.hooks.__enter__()
        return self

    def __exit__(self, *error):
        self.hooks.__exit__(*error)
        self.module.multi_scale_deformable_attn_pytorch = self.original

    def substitute(self, *arguments):
        """Count what the kernel keeps: its arguments."""
        for each in arguments:
            self.keep(each)
        self.counting = False
        try:
            return self.original(*arguments)
        finally:
            self.counting = True

    def keep(self, tensor):
        """Remember a storage; holding it keeps another one from taking its address."""
        storage = tensor.untyped_storage()
        if self.counting and storage.data_ptr() not in self.known:
            self.storages[storage.data_ptr()] = storage
        return tensor

    @property
    def bytes(self):
        """Return the size of all storages."""
        return sum(storage.nbytes() for storage in self.storages.values())


def kept(model, crop, autocast):
    """Return the bytes that the forward pass of one crop keeps."""
    images, samples = batch(crop)
    with Kept(model) as count, torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        losses = model.loss(images, samples)
    total = count.bytes
    del losses
    return total


def peak(call):
    """Return the most bytes that ``call`` held at once, above what it found."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        call()
    now = most = 0
    for event in profiled.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most


def matching(head, objects, at_once):
    """Return the peak of the matching costs alone, whose points are sampled before."""
    predicted = InstanceData(
        scores=torch.randn(head.num_queries, head.num_classes + 1),
        masks=torch.randn(head.num_queries, head.num_points, requires_grad=True),
    )
    labels = torch.arange(objects) % head.num_classes
    truth = InstanceData(labels=labels, masks=torch.zeros(objects, head.num_points))
    head.assigner.match_costs[0].targets_at_once = at_once
    return peak(lambda: head.assigner.assign(predicted, truth))


def points(head, crop, objects):
    """Return the peak of targets, point sampling and mask losses of one decoder layer of one image."""
    scores = torch.randn(1, head.num_queries, head.num_classes + 1)
    masks = torch.randn(1, head.num_queries, crop // 4, crop // 4, requires_grad=True)
    truth = InstanceData(labels=torch.arange(objects) % head.num_classes, masks=torch.zeros(objects, crop, crop).long())
    return peak(lambda: head._loss_by_feat_single(scores, masks, [truth], [{}]))


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/ade20k_mask2former_r50.py")
    parser.add_argument("--crops", nargs="+", type=int, default=[512, 640])
    parser.add_argument("--objects", nargs="+", type=int, default=[10, 50, 150, 2000])
    options = parser.parse_args()
    torch.manual_seed(0)
    model = build(options.config)
    weights = 16 * sum(parameter.numel() for parameter in model.parameters())
    print(f"weights {weights / MIB:.0f} MiB")
    for crop in options.crops:
        single, mixed = (kept(model, crop, autocast) / MIB for autocast in (False, True))
        print(f"crop {crop}: kept {single:.0f} MiB, autocast {mixed:.0f}", flush=True)
    head = model.decode_head
    for objects in options.objects:
        costs = [matching(head, objects, at_once) / MIB for at_once in (None, 25)]
        print(f"{objects} objects: matching {costs[0]:.0f} MiB, 25 at once {costs[1]:.0f}", flush=True)
    for crop in options.crops:
        for objects in options.objects[:-1]:
            print(f"crop {crop}, {objects} objects: points {points(head, crop, objects) / MIB:.0f} MiB", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
