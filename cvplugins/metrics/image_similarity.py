"""How alike two images are: squared and absolute error, PSNR, SSIM and MS-SSIM of one pair, on one core.

SSIM is the index that :mod:`cvplugins.losses.structural_similarity` makes a loss of, in NumPy and without gradient:
the sum and the difference of the images and the squares of both are blurred, by products with banded matrices, which
BLAS does in a fraction of the time of a convolution, in bands of rows that stay in the cache.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from cvplugins.losses.structural_similarity import K1, K2, SCALE_WEIGHTS, gaussian_window

__all__ = [
    "luminance",
    "mean_absolute_error",
    "mean_squared_error",
    "multi_scale_structural_similarity",
    "peak_signal_noise_ratio",
    "structural_similarity",
]

ROW = 256  # 256 squares of 8 bits are less than 2**24, so that their sum is exact in float32
VALUES_AT_ONCE = 2**16
TILE = 8  # rows and columns of a block of the banded matrix; the fastest
BAND_BYTES = 2**17  # of one map of a band of rows, so that all maps stay in the cache
LUMINANCE = {"rgb": (65.481, 128.553, 24.966), "bgr": (24.966, 128.553, 65.481)}
DARKEST = 16.0

Image = NDArray[Any]


def mean_squared_error(image: Image, target: Image) -> float:
    """Mean of the squared differences; exact for 8 bits, else in the type of :func:`float_type`.

    Args:
        image: Any shape; integers or floating point.
        target: The same shape and type.

    Example:
        >>> mean_squared_error(np.array([0, 255], np.uint8), np.array([4, 255], np.uint8))
        8.0
    """
    total = 0.0
    for rows in _differences(image, target):
        # One dot product a row: what a sum needs, in one pass over the memory.
        total += float(np.matmul(rows[:, None], rows[:, :, None]).sum(dtype=np.float64))
    return total / max(1, image.size)


def mean_absolute_error(image: Image, target: Image) -> float:
    """Mean of the absolute differences; arguments and precision as for :func:`mean_squared_error`.

    >>> mean_absolute_error(np.array([0, 255], np.uint8), np.array([4, 255], np.uint8))
    2.0
    """
    total = 0.0
    for rows in _differences(image, target):
        total += float((np.abs(rows) @ np.ones(rows.shape[1], rows.dtype)).sum(dtype=np.float64))
    return total / max(1, image.size)


def peak_signal_noise_ratio(squared_error: float, data_range: float) -> float:
    """``10 * log10(data_range ** 2 / squared_error)`` in decibels; infinite for an error of 0.

    Args:
        squared_error: Mean squared error of the image.
        data_range: Largest minus smallest possible value.

    Example:
        >>> peak_signal_noise_ratio(0.01, 1.0)
        20.0
    """
    return 10 * math.log10(data_range**2 / squared_error) if squared_error else math.inf


def structural_similarity(
    image: Image, target: Image, data_range: float, *, window: int = 11, sigma: float = 1.5
) -> float:
    """Mean structural similarity (SSIM) over all windows inside of the image and all channels, in [-1, 1].

    What scikit-image gives with ``gaussian_weights=True, use_sample_covariance=False``. Reference: Wang et al., Image
    Quality Assessment: From Error Visibility to Structural Similarity, TIP 2004.

    Args:
        image: ``(C, H, W)``; computed in the type of :func:`float_type`.
        target: The same shape.
        data_range: Largest minus smallest possible value.
        window: Side of the Gaussian window in pixels.
        sigma: Its standard deviation in pixels.

    Raises:
        ValueError: The image is smaller than the window.

    Example:
        >>> image = np.eye(16)[None]
        >>> structural_similarity(image, image, 1.0)
        1.0
    """
    _check_size(image, window)
    pairs = zip(image, target, strict=True)
    return math.fsum(_mean_similarity(*pair, data_range, window, sigma, False) for pair in pairs) / len(image)


def multi_scale_structural_similarity(
    image: Image,
    target: Image,
    data_range: float,
    *,
    window: int = 11,
    sigma: float = 1.5,
    scale_weights: Sequence[float] = SCALE_WEIGHTS,
) -> float:
    """Structural similarity over several scales (MS-SSIM), the mean over channels, in [0, 1].

    One minus :func:`cvplugins.losses.ms_ssim_loss`, whose conventions it has: halved by means of 2 x 2 pixels, and a
    negative mean counts as 0. Reference: Wang et al., Multi-scale Structural Similarity, Asilomar 2003.

    Args:
        image: ``(C, H, W)``, with ``S`` scales at least ``window * 2 ** (S - 1)`` pixels high and wide.
        target: The same shape.
        data_range: Largest minus smallest possible value.
        window: Side of the Gaussian window in pixels.
        sigma: Its standard deviation in pixels.
        scale_weights: Power of each scale, from fine to coarse.

    Raises:
        ValueError: The image is too small for the window at the last scale.

    Example:
        >>> image = np.eye(44)[None]
        >>> multi_scale_structural_similarity(image, image, 1.0, scale_weights=[0.2, 0.3, 0.5])
        1.0
    """
    _check_size(image, window, len(scale_weights))
    similarity = []
    for one, other in zip(image, target, strict=True):
        product = 1.0
        for scale, power in enumerate(scale_weights, 1):
            contrast_only = scale < len(scale_weights)
            product *= max(0.0, _mean_similarity(one, other, data_range, window, sigma, contrast_only)) ** power
            if contrast_only:
                one, other = _halved(one), _halved(other)
        similarity.append(product)
    return math.fsum(similarity) / len(image)


def luminance(image: Image, order: str, data_range: float) -> Image:
    """Luminance (Y) of ITU-R BT.601, from 16/255 to 235/255 of the range, as in MATLAB's ``rgb2ycbcr`` and BasicSR.

    Args:
        image: ``(3, H, W)``, values from 0 to ``data_range``.
        order: Order of the channels, ``"rgb"`` or ``"bgr"``.
        data_range: Largest possible value.

    Returns:
        ``(1, H, W)`` in the type of :func:`float_type`; not rounded, while MATLAB rounds for images of 8 bits.

    Raises:
        ValueError: There are not three channels.

    Example:
        >>> luminance(np.full((3, 1, 1), 255.0), "rgb", 255)
        array([[[235.]]])
    """
    if len(image) != 3:
        raise ValueError(f"luminance needs 3 channels, not {len(image)}; leave the option out for grey images")
    dtype = float_type(image)
    weights = np.array(LUMINANCE[order], dtype) / dtype.type(255)
    weighted: Image = np.tensordot(weights, image.astype(dtype, copy=False), 1)[None]
    weighted += dtype.type(DARKEST / 255 * data_range)
    return weighted


def float_type(image: Image) -> np.dtype[Any]:
    """Return the type to compute in: float32 for what it holds exactly, float64 for everything else.

    >>> float_type(np.zeros(1, np.uint8)), float_type(np.zeros(1, np.int32))
    (dtype('float32'), dtype('float64'))
    """
    return np.result_type(image.dtype, np.float32)


def _differences(image: Image, target: Image) -> Iterator[NDArray[Any]]:
    """Yield all differences, as rows of 256 and one of what is left; absolute ones for 8 bits.

    All of them are in the same memory: fresh memory would cost more than the arithmetic.
    """
    dtype = float_type(image)
    memory = np.empty(min(VALUES_AT_ONCE, image.size), dtype)
    order: Any = "K" if image.strides == target.strides else "C"  # as the memory lies, where that is the same
    image, target = image.ravel(order), target.ravel(order)
    for start in range(0, image.size, VALUES_AT_ONCE):
        one, other = image[start : start + VALUES_AT_ONCE], target[start : start + VALUES_AT_ONCE]
        difference = memory[: one.size]
        if one.dtype == np.uint8:  # 8 bits at a time are four times as fast as float32
            np.copyto(difference, np.maximum(one, other) - np.minimum(one, other))
        else:
            np.subtract(one, other, out=difference, dtype=dtype)
        whole = difference.size - difference.size % ROW
        yield difference[:whole].reshape(-1, ROW)
        if whole < difference.size:
            yield difference[None, whole:]


def _mean_similarity(
    image: Image, target: Image, data_range: float, window: int, sigma: float, contrast_only: bool
) -> float:
    """Return the mean over windows of SSIM, or of its contrast and structure, of one channel ``(H, W)``."""
    dtype = float_type(image)
    height, width = image.shape[0] - window + 1, image.shape[1] - window + 1
    blur = _Blur(height, width, window, sigma, dtype)
    # Both maps have to be small for the squares to be precise: a constant, which is whole so that 8 bits stay exact.
    means = [np.mean(each[::8, ::8], dtype=np.float64) for each in (image, target)]
    middle = dtype.type(np.rint(sum(means)))
    c1, c2 = (dtype.type(2 * (k * data_range) ** 2) for k in (K1, K2))
    total = 0.0
    for top in range(0, height, blur.rows):
        rows = slice(top, top + min(blur.rows, height - top) + window - 1)
        maps = blur(image[rows], target[rows], middle)
        similarity = _similarity(maps, middle, c1, c2, contrast_only)[:, : height - top]
        whole = width // TILE
        total += float(similarity[:whole].sum()) + float(similarity[whole:, :, : width % TILE].sum())
    return total / float(height * width)


class _Blur:
    """Blurred sum, difference and their squares, ``(4, tiles, rows, TILE)`` for a band of rows."""

    def __init__(self, height: int, width: int, window: int, sigma: float, dtype: np.dtype[Any]) -> None:
        weights = gaussian_window(torch.zeros((), dtype=torch.float64), window, sigma).numpy()
        band = TILE + window - 1
        self.matrix = np.zeros((TILE, band), dtype)
        for row in range(TILE):
            self.matrix[row, row : row + window] = weights
        self.transposed = np.ascontiguousarray(self.matrix.T)
        tiles = -(-width // TILE)
        columns = tiles * TILE + window - 1
        at_once = max(1, min(-(-height // TILE), BAND_BYTES // (TILE * columns * dtype.itemsize)))
        self.rows = at_once * TILE
        self.maps = np.zeros((4, self.rows + window - 1, columns), dtype)
        self.down = np.zeros((4, self.rows, columns), dtype)
        self.out = np.zeros((4, tiles, self.rows, TILE), dtype)
        # Overlapping views: TILE rows of output need TILE + window - 1 of input, and likewise for columns.
        plane, line, item = self.maps.strides
        self.above = as_strided(self.maps, (4, at_once, band, columns), (plane, TILE * line, line, item))
        plane, line, item = self.down.strides
        self.left = as_strided(self.down, (4, tiles, self.rows, band), (plane, TILE * item, line, item))

    def __call__(self, image: Image, target: Image, middle: Any) -> NDArray[Any]:
        """Return the maps of a band, in memory that the next call uses again; ``middle`` is subtracted of the sum."""
        rows, columns = image.shape
        total, difference, product, _ = self.maps[:, :rows, :columns]
        total[:], product[:] = image, target
        np.subtract(total, product, out=difference)
        total += product
        total -= middle
        np.multiply(self.maps[:2], self.maps[:2], out=self.maps[2:])
        np.matmul(self.matrix, self.above, out=self.down.reshape(4, -1, TILE, self.down.shape[2]))
        np.matmul(self.left, self.transposed, out=self.out)
        return self.out


def _similarity(maps: NDArray[Any], middle: Any, c1: Any, c2: Any, contrast_only: bool) -> NDArray[Any]:
    """Return SSIM at each window, ``(tiles, rows, TILE)``; overwrites ``maps``."""
    mean, variance = maps[:2], maps[2:]
    power = mean * mean
    variance -= power
    np.maximum(variance, 0, out=variance)  # rounding may leave less than 0
    similarity = _agreement(variance, c2)
    if not contrast_only:
        total = mean[0]
        total += middle
        np.multiply(total, total, out=power[0])
        similarity *= _agreement(power, c1)
    return similarity


def _agreement(powers: NDArray[Any], constant: Any) -> NDArray[Any]:
    """Return ``(sum - difference) / (sum + difference)`` of the powers of both; overwrites that of the sum."""
    total, difference = powers
    total += constant
    agreement: NDArray[Any] = total - difference
    total += difference
    agreement /= total
    return agreement


def _halved(image: Image) -> Image:
    """Return means of 2 x 2 pixels of ``(H, W)``, without an odd last row or column."""
    dtype = float_type(image)
    image = image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2].astype(dtype, copy=False)
    rows = image[::2] + image[1::2]
    halved: Image = (rows[:, ::2] + rows[:, 1::2]) * dtype.type(0.25)
    return halved


def _check_size(image: Image, window: int, scales: int = 1) -> None:
    smallest = window * 2 ** (scales - 1)
    if min(image.shape[1:]) < smallest:
        raise ValueError(
            f"a window of {window} pixels does not fit into an image of {image.shape[1]} x {image.shape[2]} pixels at "
            f"scale {scales}: both sides have to be at least {smallest}"
        )
