"""Deformable convolution, plain and modulated: strides, groups, points outside, on whole pixels and at the border."""

from __future__ import annotations

import numpy as np
from ops.cases import Case

# name: batch, channels, map, kernel, spread of the offsets, options
GEOMETRIES = {
    "padded": (2, 3, (4, 5), (3, 3), 1.0, {"padding": (1, 1)}),
    "strided": (1, 2, (7, 6), (3, 3), 2.0, {"stride": (2, 2), "padding": (2, 2), "dilation": (2, 2)}),
    "uneven": (1, 2, (6, 9), (2, 3), 1.0, {"stride": (2, 1), "padding": (0, 1), "dilation": (1, 2)}),
    "grouped": (2, 4, (4, 3), (3, 3), 1.0, {"padding": (1, 1), "groups": 2, "deform_groups": 2}),
    "offset_groups": (1, 4, (3, 4), (3, 3), 1.0, {"padding": (1, 1), "deform_groups": 4}),
    "still": (1, 2, (3, 4), (3, 3), 0.0, {"padding": (1, 1)}),  # points exactly one pixel outside
    "whole": (1, 2, (4, 4), (3, 3), "whole", {"padding": (1, 1)}),
    "far": (1, 2, (3, 4), (3, 3), 50.0, {"padding": (1, 1)}),
    "one_pixel": (2, 3, (1, 1), (1, 1), 0.4, {}),
}


def inputs_of(geometry: str, modulated: bool, dtype: type = np.float32) -> dict[str, np.ndarray]:
    """Return input, offset, weight, and for a modulated convolution mask and bias."""
    batch, channels, size, kernel, spread, options = GEOMETRIES[geometry]
    rng = np.random.RandomState(len(geometry) + modulated)
    stride, dilation = options.get("stride", (1, 1)), options.get("dilation", (1, 1))
    padding = options.get("padding", (0, 0))
    out = [(size[d] + 2 * padding[d] - dilation[d] * (kernel[d] - 1) - 1) // stride[d] + 1 for d in (0, 1)]
    taps = options.get("deform_groups", 1) * kernel[0] * kernel[1]
    offset = rng.randn(batch, 2 * taps, *out)
    if dtype is np.float16:
        # mmcv's kernel rounds the points too; those on sixteenths stay where they are, and no slope jumps.
        offset = np.round(offset * 16) / 16
    inputs = {
        "input": rng.randn(batch, channels, *size),
        "offset": np.round(offset * 1.5) if spread == "whole" else offset * spread,
        "weight": rng.randn(4, channels // options.get("groups", 1), *kernel) / 3,
    }
    if modulated:
        inputs |= {"mask": rng.rand(batch, taps, *out), "bias": rng.randn(4)}
    return {name: array.astype(dtype) for name, array in inputs.items()}


def options_of(geometry: str) -> dict[str, object]:
    """Return the options of a geometry by mmcv's names."""
    return {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "deform_groups": 1} | GEOMETRIES[geometry][-1]


def mmcv_deform_conv(im2col_step=32, **options):
    def call(input, offset, weight):
        from mmcv.ops import deform_conv2d

        return deform_conv2d(input, offset, weight, *options.values(), False, im2col_step)

    return call


def mmcv_modulated_deform_conv(**options):
    def call(input, offset, weight, mask, bias=None):
        from mmcv.ops import modulated_deform_conv2d

        return modulated_deform_conv2d(input, offset, mask, weight, bias, *options.values())

    return call


def small_map(input, offset, weight):
    """A map smaller than the kernel, which the module pads."""
    from mmcv.ops import DeformConv2d

    module = DeformConv2d(2, 4, 3, padding=1)
    del module.weight
    module.weight = weight
    return module(input, offset)


def small_map_inputs() -> dict[str, np.ndarray]:
    rng = np.random.RandomState(7)
    shapes = {"input": (1, 2, 2, 4), "offset": (1, 18, 2, 4), "weight": (4, 2, 3, 3)}
    return {name: rng.randn(*shape).astype(np.float32) for name, shape in shapes.items()}


def inputs_with_offsets_of_a_larger_level() -> dict[str, np.ndarray]:
    """What mmdet's DyHead gives: mmcv's kernel reads the numbers in order, in lines of its output."""
    rng = np.random.RandomState(8)
    shapes = {"input": (2, 2, 3, 4), "offset": (2, 18, 6, 8), "weight": (4, 2, 3, 3), "mask": (2, 9, 6, 8)}
    return {name: rng.randn(*shape).astype(np.float32) for name, shape in shapes.items()} | {
        "bias": rng.randn(4).astype(np.float32)
    }


PLAIN, MODULATED = ("input", "offset", "weight"), ("input", "offset", "weight", "mask", "bias")

CASES = [
    *(
        Case("deform_conv", name, inputs_of(name, False), mmcv_deform_conv(**options_of(name)), PLAIN, atol=1e-5)
        for name in GEOMETRIES
    ),
    *(
        Case(
            "modulated_deform_conv",
            name,
            inputs_of(name, True),
            mmcv_modulated_deform_conv(**options_of(name)),
            MODULATED,
            atol=1e-5,
        )
        for name in GEOMETRIES
    ),
    Case(
        "deform_conv",
        "im2col_step",
        inputs_of("padded", False),
        mmcv_deform_conv(1, **options_of("padded")),
        PLAIN,
        atol=1e-5,
    ),
    Case("deform_conv", "small_map", small_map_inputs(), small_map, PLAIN, atol=1e-5),
    Case(
        "modulated_deform_conv",
        "no_bias",
        {name: array for name, array in inputs_of("padded", True).items() if name != "bias"},
        mmcv_modulated_deform_conv(**options_of("padded")),
        MODULATED[:4],
        atol=1e-5,
    ),
    Case(
        "modulated_deform_conv",
        "larger_level",
        inputs_with_offsets_of_a_larger_level(),
        mmcv_modulated_deform_conv(**options_of("padded")),
        MODULATED,
        atol=1e-5,
    ),
    # Frozen parameters or inputs: mmcv asks for the gradients of one side only.
    Case(
        "deform_conv",
        "only_weight",
        inputs_of("uneven", False),
        mmcv_deform_conv(**options_of("uneven")),
        ("weight",),
        atol=1e-5,
    ),
    Case(
        "deform_conv",
        "only_input",
        inputs_of("uneven", False),
        mmcv_deform_conv(**options_of("uneven")),
        ("input", "offset"),
        atol=1e-5,
    ),
]
for kind, dtype, rtol, atol in (("double", np.float64, 1e-9, 1e-10), ("half", np.float16, 2e-2, 2e-2)):
    CASES += [
        Case(
            "deform_conv",
            kind,
            inputs_of("strided", False, dtype),
            mmcv_deform_conv(**options_of("strided")),
            PLAIN,
            rtol,
            atol,
        ),
        Case(
            "modulated_deform_conv",
            kind,
            inputs_of("strided", True, dtype),
            mmcv_modulated_deform_conv(**options_of("strided")),
            MODULATED,
            rtol,
            atol,
        ),
    ]
