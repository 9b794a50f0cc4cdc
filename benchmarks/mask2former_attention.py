"""What the deformable attention of the original Mask2Former takes of a training step on a CPU, and keeps for it.

OMP_NUM_THREADS=2 MASK2FORMER_ROOT=../Mask2Former python benchmarks/mask2former_attention.py [--crop 512]

- step: forward and backward pass of one crop through the whole model (R50, random weights) with cvplugins' attention.
- cvplugins, formula: the same of the attention alone, for the 6 layers of the pixel decoder, as cvplugins computes it
  and as the project's `ms_deform_attn_core_pytorch` does, which it takes where its CUDA op is not compiled.
- kept: what autograd keeps of it, beside its arguments, which are what the CUDA op keeps.
"""

import argparse
import sys
import time

import torch
from detectron2.modeling import build_model
from detectron2.structures import Instances
from detectron2.utils.events import EventStorage

from cvplugins.detectron2.run.config import load_config
from cvplugins.ops.deformable_attention import multi_scale_deformable_attention

MIB = 2**20
LAYERS, HEADS, CHANNELS, POINTS = 6, 8, 32, 4


def step(model, crop):
    """Return the seconds of a forward and backward pass of one crop with ten classes in stripes."""
    instances = Instances((crop, crop))
    instances.gt_classes = torch.arange(10)
    stripes = torch.arange(crop).mul(10).div(crop, rounding_mode="floor").expand(crop, crop)
    instances.gt_masks = stripes[None] == torch.arange(10)[:, None, None]
    record = {"image": torch.randint(0, 255, (3, crop, crop)), "instances": instances}
    begin = time.perf_counter()
    with EventStorage():
        sum(model([record]).values()).backward()
    return time.perf_counter() - begin


def formula(value, shapes, starts, places, weights):
    """Return what the project computes without its op."""
    from mask2former.modeling.pixel_decoder.ops.functions.ms_deform_attn_func import ms_deform_attn_core_pytorch

    return ms_deform_attn_core_pytorch(value, shapes, places, weights)


def attention(compute, crop):
    """Return the seconds of a forward and backward pass of one layer, and the bytes that are kept between them."""
    shapes = torch.tensor([[crop // stride, crop // stride] for stride in (32, 16, 8)])
    tokens = int(shapes.prod(1).sum())
    value = torch.randn(1, tokens, HEADS, CHANNELS, requires_grad=True)
    places = torch.rand(1, tokens, HEADS, 3, POINTS, 2, requires_grad=True)
    weights = torch.rand(1, tokens, HEADS, 3, POINTS, requires_grad=True)
    starts = shapes.prod(1).cumsum(0) - shapes.prod(1)
    known = {each.untyped_storage().data_ptr() for each in (value, shapes, starts, places, weights)}
    storages = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            storages[storage.data_ptr()] = storage
        return tensor

    begin = time.perf_counter()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = compute(value, shapes, starts, places, weights)
    out.sum().backward()
    return time.perf_counter() - begin, sum(storage.nbytes() for storage in storages.values())


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/detectron2/ade20k_mask2former_R50.yaml")
    parser.add_argument("--crop", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    cfg = load_config(arguments.config)
    cfg.MODEL.DEVICE = "cpu"
    model = build_model(cfg).train()
    whole = min(step(model, arguments.crop) for _ in range(arguments.rounds))
    sys.stdout.write(f"crop of {arguments.crop}: step {whole:.2f} s\n")
    for name, compute in (("cvplugins", multi_scale_deformable_attention), ("formula", formula)):
        layers = [attention(compute, arguments.crop) for _ in range(arguments.rounds)]
        seconds, kept = LAYERS * min(each for each, _ in layers), LAYERS * layers[0][1]
        sys.stdout.write(f"{name}: {seconds:.2f} s, kept {kept / MIB:.0f} MiB\n")


if __name__ == "__main__":
    main()
