"""Image quality: MSE, MAE, PSNR, SSIM and MS-SSIM of each image, and their means."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .image_similarity import (
    LUMINANCE,
    luminance,
    mean_absolute_error,
    mean_squared_error,
    multi_scale_structural_similarity,
    peak_signal_noise_ratio,
    structural_similarity,
)
from .matching import Floats
from .undefined import defined

__all__ = ["ImageQuality", "ImageQualityMetric", "ImageQualityResult"]

MEASURES = ("MSE", "MAE", "PSNR", "SSIM", "MS-SSIM")
LAYOUTS = ("CHW", "HWC", "HW")


@dataclass(frozen=True)
class ImageQuality:
    """What an :class:`ImageQualityMetric` keeps of an image.

    Attributes:
        image_id: Number or name.
        values: One number a measure, float64, ``(M,)``.
    """

    image_id: int | str
    values: Floats


@dataclass(frozen=True)
class ImageQualityResult:
    """The measures of :class:`ImageQualityMetric`.

    Attributes:
        measures: Their names, M of them.
        image_ids: The images, N of them, numbers before names, in rising order.
        values: ``(N, M)``; NaN where the options leave an image out of a mean.
        settings: The options of the metric.
    """

    measures: tuple[str, ...]
    image_ids: tuple[int | str, ...]
    values: Floats
    settings: dict[str, Any]

    def column(self, measure: str) -> Floats:
        """Return one measure of all images, ``(N,)``."""
        column: Floats = self.values[:, self.measures.index(measure)]
        return column

    def worst(self, measure: str) -> NDArray[np.intp]:
        """Return the indices of the images from worst to best; of equal ones the first comes first."""
        column = self.column(measure)
        return np.argsort(-column if measure in ("MSE", "MAE") else column, kind="stable")

    def numbers(self) -> dict[str, float]:
        """Return the mean of each measure over images, NaN where it is undefined."""
        return {name: _mean(self.column(name)) for name in self.measures}

    def scalars(self) -> dict[str, float]:
        """Return the numbers without those that are undefined."""
        return defined(self.numbers())

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain data that JSON can hold: None for what is undefined, "inf" for infinity."""
        return {
            "num_images": len(self.image_ids),
            "settings": {name: _plain(value) for name, value in self.settings.items()},
            "mean": {name: _plain(value) for name, value in self.scalars().items()},
            "per_image": {
                str(image_id): dict(zip(self.measures, map(_plain, row), strict=True))
                for image_id, row in zip(self.image_ids, self.values.tolist(), strict=True)
            },
        }


class ImageQualityMetric:
    """MSE, MAE, PSNR, SSIM and MS-SSIM: of each image alone, then the mean over images.

    So PSNR is the mean of the PSNR of each image, as papers on image restoration have it, not that of the mean error.
    Where reference codes differ:

    - Equal images have an infinite PSNR, and so has the mean then, as in scikit-image, BasicSR and mmagic;
      ``psnr_of_equal`` gives them another number, or NaN to leave them out of the mean.
    - SSIM is the mean over the windows inside of the image, as in its paper, BasicSR and scikit-image with Gaussian
      weights; torchmetrics also counts windows over the border. Of colours it is the mean over channels.
    - MS-SSIM halves by means of 2 x 2 pixels, and a negative mean counts as 0.

    MSE and MAE have the unit of the images' values. Images of 8 or 16 bits and of half or single precision are
    computed in float32 (the sums of MSE and MAE in float64; MSE and MAE of 8 bits are exact), which moves SSIM by 1e-7
    or so; images of float64 in float64. An image always gives the same numbers, whatever stands beside it, and means
    are rounded once, so that the result does not depend on order, batches or processes.

    Args:
        data_range: Largest minus smallest possible value: 255 for 8 bits, 1 for values from 0 to 1, 2 from -1 to 1.
        measures: Which of ``"MSE"``, ``"MAE"``, ``"PSNR"``, ``"SSIM"`` and ``"MS-SSIM"``, which needs images of at
            least 176 x 176 pixels.
        layout: Order of the dimensions: ``"CHW"``, ``"HWC"`` or ``"HW"``.
        crop_border: Pixels to leave out at each side, as super-resolution does by its scale.
        luminance: ``"rgb"`` or ``"bgr"``, the order of the channels, to compare only the luminance (Y of BT.601) of
            images with values from 0 to ``data_range``; None to compare all channels.
        psnr_of_equal: PSNR of equal images.

    Raises:
        ValueError: An option is none of what is accepted.

    Example:
        >>> metric = ImageQualityMetric(data_range=255, layout="HW")
        >>> image = np.zeros((16, 16), np.uint8)
        >>> metric.update("a.png", image, image + np.uint8(4))
        >>> {name: round(value, 3) for name, value in metric.compute().scalars().items()}
        {'MSE': 16.0, 'MAE': 4.0, 'PSNR': 36.09, 'SSIM': 0.289}
    """

    def __init__(
        self,
        data_range: float,
        *,
        measures: Sequence[str] = ("MSE", "MAE", "PSNR", "SSIM"),
        layout: str = "CHW",
        crop_border: int = 0,
        luminance: str | None = None,
        psnr_of_equal: float = math.inf,
    ) -> None:
        if not 0 < data_range < math.inf:
            raise ValueError(f"data_range is {data_range}; give the largest minus the smallest value, such as 255 or 1")
        unknown = [name for name in measures if name not in MEASURES]
        if unknown or not measures:
            raise ValueError(f"measures are {tuple(measures)}; give some of {', '.join(MEASURES)}")
        if layout not in LAYOUTS:
            raise ValueError(f"layout is {layout!r}; there are: {', '.join(LAYOUTS)}")
        if luminance not in (None, *LUMINANCE):
            raise ValueError(f"luminance is {luminance!r}; give the order of the channels, 'rgb' or 'bgr', or None")
        if crop_border < 0:
            raise ValueError(f"crop_border is {crop_border}; it has to be at least 0")
        self.measures = tuple(measures)
        self.settings: dict[str, Any] = {
            "data_range": data_range,
            "layout": layout,
            "crop_border": crop_border,
            "luminance": luminance,
            "psnr_of_equal": psnr_of_equal,
        }
        self.images: dict[int | str, ImageQuality] = {}

    def update(self, image_id: int | str, image: NDArray[Any] | Tensor, target: NDArray[Any] | Tensor) -> None:
        """Add one image.

        Args:
            image_id: Number or name; each image counts once.
            image: What a model made; array, or tensor on any device.
            target: What it should be: the same shape; a type that differs is converted together with that of ``image``.

        Raises:
            ValueError: Shapes differ or do not fit the options, a value is not finite, or integers do not fit
                ``data_range``; the message names the image.
        """
        self.add(self.measure(image_id, image, target))

    def add(self, image: ImageQuality) -> None:
        """Add the state of one image.

        Raises:
            ValueError: The image was added before.
        """
        if image.image_id in self.images:
            raise ValueError(f"image {image.image_id} was added twice")
        self.images[image.image_id] = image

    def measure(self, image_id: int | str, image: NDArray[Any] | Tensor, target: NDArray[Any] | Tensor) -> ImageQuality:
        """Return the state of one image, without adding it; arguments and errors as for :meth:`update`."""
        try:
            values = self._values(*self._prepared(_array(image), _array(target)))
        except ValueError as error:
            raise ValueError(f"image {image_id}: {error}") from None
        return ImageQuality(image_id, np.array(values))

    def merge(self, other: ImageQualityMetric) -> None:
        """Add the images of another part of the data set.

        Raises:
            ValueError: Measures or options differ, or an image is in both parts.
        """
        # NaN is no number that equals itself, so that settings are compared as they are written.
        if (other.measures, str(other.settings)) != (self.measures, str(self.settings)):
            raise ValueError(
                "cannot merge metrics of different measures or options: "
                f"{self.measures}, {self.settings} and {other.measures}, {other.settings}"
            )
        for image in other.images.values():
            self.add(image)

    def compute(self) -> ImageQualityResult:
        """Return the measures of all images so far."""
        ordered = sorted(self.images.values(), key=lambda image: (isinstance(image.image_id, str), image.image_id))
        values = np.array([image.values for image in ordered]).reshape(-1, len(self.measures))
        return ImageQualityResult(self.measures, tuple(image.image_id for image in ordered), values, self.settings)

    def _prepared(self, image: NDArray[Any], target: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return both as ``(C, H, W)`` in one type, cropped, as luminance if wanted."""
        layout, border = self.settings["layout"], self.settings["crop_border"]
        if image.shape != target.shape:
            raise ValueError(f"the image has shape {image.shape}, but its target {target.shape}")
        if image.ndim != len(layout):
            raise ValueError(f"it has shape {image.shape}; layout {layout!r} has {len(layout)} dimensions")
        sides = [image.shape[layout.index(side)] for side in "HW"]
        if min(sides) <= 2 * border or image.size == 0:
            raise ValueError(f"nothing is left of its shape {image.shape} without borders of {border} pixels")
        dtype = np.result_type(image, target)
        inner = (slice(None), *(slice(border, side - border) for side in sides))
        pair = []
        for each in (image.astype(dtype, copy=False), target.astype(dtype, copy=False)):
            planes = (each[None] if layout == "HW" else np.moveaxis(each, layout.index("C"), 0))[inner]
            order = self.settings["luminance"]
            pair.append(luminance(planes, order, self.settings["data_range"]) if order else planes)
        return pair[0], pair[1]

    def _values(self, image: NDArray[Any], target: NDArray[Any]) -> list[float]:
        data_range = self.settings["data_range"]
        squared = mean_squared_error(image, target)
        if not math.isfinite(squared):
            raise ValueError("a value of the image or of its target is NaN or infinite; look for the step that made it")
        if image.dtype.kind in "iu" and squared > data_range**2:
            raise ValueError(
                f"it holds {image.dtype}, and differs from its target by more than data_range={data_range}; "
                "give data_range=255 for 8 bits"
            )
        psnr = peak_signal_noise_ratio(squared, data_range) if squared else float(self.settings["psnr_of_equal"])
        compute = {
            "MSE": lambda: squared,
            "MAE": lambda: mean_absolute_error(image, target),
            "PSNR": lambda: psnr,
            "SSIM": lambda: structural_similarity(image, target, data_range),
            "MS-SSIM": lambda: multi_scale_structural_similarity(image, target, data_range),
        }
        return [compute[name]() for name in self.measures]


def _array(image: NDArray[Any] | Tensor) -> NDArray[Any]:
    if isinstance(image, Tensor):
        image = image.detach().cpu()
        return (image.float() if image.dtype == torch.bfloat16 else image).numpy()  # NumPy has no bfloat16
    return np.asarray(image)


def _mean(values: Floats) -> float:
    """Return the exact mean, rounded once, so that it does not depend on the order; NaN is left out."""
    defined = values[~np.isnan(values)]
    return math.fsum(defined.tolist()) / len(defined) if len(defined) else math.nan


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value
