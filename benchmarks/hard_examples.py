"""What hard example mining costs, as a part of a training iteration of Faster R-CNN R50 of the zoo.

One run measures both, by turns: whole iterations, and the hook's own work in them. Batches are two random images of
``--size`` pixels. The refresh is that of a rank that saw a data set of ``--images`` images.

Run:
    python benchmarks/hard_examples.py [--size 320] [--rounds 5] [--images 118287]
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch


def seconds(call) -> float:
    """Return how long a call takes, until the device is done."""
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def detector_and_batch(size: int):
    """Return the zoo's Faster R-CNN R50-FPN with random weights, and two images with an object each."""
    from mmdet.registry import MODELS
    from mmdet.structures import DetDataSample
    from mmengine.config import Config
    from mmengine.registry import init_default_scope
    from mmengine.structures import InstanceData

    init_default_scope("mmdet")
    config = Config.fromstring("_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'", ".py")
    config.model.backbone.init_cfg = None
    images, samples = [], []
    for index in range(2):
        meta = dict(img_shape=(size, size), ori_shape=(size, size), scale_factor=(1.0, 1.0), img_path=str(index))
        sample = DetDataSample(metainfo=meta)
        box = torch.tensor([[size / 4, size / 4, size / 2, size / 2]])
        sample.gt_instances = InstanceData(bboxes=box, labels=torch.tensor([3]))
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
        images.append(torch.randint(0, 255, (3, size, size), dtype=torch.uint8))
        samples.append(sample)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return MODELS.build(config.model).to(device).train(), dict(inputs=images, data_samples=samples)


def main() -> None:
    """Measure and print."""
    from mmengine.optim import build_optim_wrapper

    from cvplugins.monitors import HardExamples
    from cvplugins.openmmlab.validation_loss import ImageLosses

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=118_287)
    options = parser.parse_args()
    model, batch = detector_and_batch(options.size)
    wrapper = build_optim_wrapper(model, dict(optimizer=dict(type="SGD", lr=0.001)))
    monitor = HardExamples(options.images)
    generator = np.random.default_rng(0)

    def alone() -> None:
        ImageLosses(model, resized=True).process(batch, [])

    losses = {}

    def iteration() -> None:
        losses.update(model.train_step(batch, wrapper))

    times = {"iteration": [], "observe": [], "alone": []}
    iteration()
    alone()
    for _ in range(options.rounds):
        times["iteration"].append(seconds(iteration))
        times["alone"].append(seconds(alone))
        pair = generator.integers(0, options.images, 2).tolist()
        times["observe"].append(seconds(lambda pair=pair: monitor.observe(pair, losses["loss"])))
    middle = {name: statistics.median(values) for name, values in times.items()}
    order = generator.permutation(options.images)
    for begin in range(0, options.images, 2):
        monitor.observe(order[begin : begin + 2].tolist(), losses["loss"])
    refresh = seconds(monitor.refresh)
    whole = middle["iteration"]
    epoch = whole * options.images / 2
    print(f"iteration                     {whole * 1e3:9.2f} ms  (batch 2, {options.size} pixels)")
    print(f"observe a batch               {middle['observe'] * 1e6:9.2f} us  {middle['observe'] / whole:.6f}")
    print(f"refresh after {options.images} images  {refresh * 1e3:9.2f} ms  {refresh / epoch:.6f} of an epoch")
    print(f"each image alone              {middle['alone'] * 1e3:9.2f} ms  {middle['alone'] / whole:.2f}")


if __name__ == "__main__":
    main()
