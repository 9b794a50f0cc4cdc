"""Operators of detectors and segmenters on torchvision's prebuilt kernels and torch: nothing is compiled."""

__all__: list[str] = []
