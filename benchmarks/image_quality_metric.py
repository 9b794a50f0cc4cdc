"""SSIM, PSNR and FID against their peers, on the same data in the same run, in turns.

OMP_NUM_THREADS=1 python benchmarks/image_quality_metric.py [--side 512] [--features 512]

Peers: scikit-image for images, and torchmetrics too where it is installed; SciPy's root of a matrix, as in pytorch-fid,
for FID. scikit-image computes images of 8 bits in float64, cvplugins in float32. PSNR is timed first and last: in a
process that has done nothing larger, the C library gives scikit-image's arrays back to the system after each call.
"""

import argparse
import math
import statistics
import time
from importlib import metadata

import numpy as np
import scipy.linalg
import torch
from skimage.metrics import peak_signal_noise_ratio as their_psnr
from skimage.metrics import structural_similarity as their_ssim

from cvplugins.metrics import frechet_distance
from cvplugins.metrics.frechet import feature_statistics
from cvplugins.metrics.image_similarity import mean_squared_error, peak_signal_noise_ratio, structural_similarity

PAPER = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "channel_axis": 0, "data_range": 255}


def in_turns(calls, repeats=7):
    """Return the median milliseconds and the result of each call."""
    seconds, results = {name: [] for name in calls}, {}
    for _ in range(repeats + 1):  # the first warms up
        for name, call in calls.items():
            start = time.perf_counter()
            results[name] = call()
            seconds[name].append(time.perf_counter() - start)
    return {name: 1e3 * statistics.median(each[1:]) for name, each in seconds.items()}, results


def show(title, calls, tolerance, repeats=7):
    """Print a row; every result has to equal the first within ``tolerance``."""
    times, results = in_turns(calls, repeats)
    ours, *peers = calls
    for peer in peers:
        assert math.isclose(results[ours], results[peer], rel_tol=0, abs_tol=tolerance), (title, results)
    shown = ", ".join(f"{peer} {times[peer]:.3f} ms ({times[peer] / times[ours]:.1f} times)" for peer in peers)
    print(f"{title:<34} {ours} {times[ours]:.3f} ms, {shown}")


def show_psnr(title, cases, side):
    """Print a row for each type and number of channels."""
    for dtype, channels in cases:
        pair = images(side, channels, dtype)
        calls = {
            "cvplugins": lambda pair=pair: peak_signal_noise_ratio(mean_squared_error(*pair), 255),
            "scikit-image": lambda pair=pair: float(their_psnr(*pair, data_range=255)),
        }
        show(f"{title}, {np.dtype(dtype).name} x {channels}", calls, 1e-6)


def torchmetrics_ssim(image, target):
    """Return a call, or None without torchmetrics; it also counts windows over the border."""
    try:
        from torchmetrics.functional.image import structural_similarity_index_measure as ssim
    except ImportError:
        return None
    tensors = [torch.from_numpy(each.astype(np.float32))[None] for each in (image, target)]
    return lambda: float(ssim(*tensors, data_range=255.0))


def images(side, channels, dtype):
    """Return an image of blocks and a noisy copy."""
    generator = np.random.default_rng(0)
    target = np.kron(generator.integers(0, 256, (channels, -(-side // 16), -(-side // 16))), np.ones((16, 16)))
    target = target[:, :side, :side]
    image = np.clip(target + generator.normal(0, 10, target.shape), 0, 255).round()
    return image.astype(dtype), target.astype(dtype)


def features(count, size, seed):
    """Return correlated features."""
    mixing = np.random.default_rng(7).normal(size=(size, size)) / math.sqrt(size)
    return np.random.default_rng(seed).normal(size=(count, size)) @ mixing + 0.1 * seed


def by_root(one, other):
    """Return FID as pytorch-fid computes it, from mean and covariance."""
    root = scipy.linalg.sqrtm(one.covariance @ other.covariance)
    trace = np.trace(one.covariance + other.covariance - 2 * root.real)
    return float(((one.mean - other.mean) ** 2).sum() + trace)


def main():
    """Time everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--features", type=int, default=512)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = {name: _version(name) for name in ("numpy", "scipy", "torch", "scikit-image", "torchmetrics")}
    print(f"{options.side}x{options.side}, median of 7, " + ", ".join(f"{name} {each}" for name, each in found.items()))
    cases = [(dtype, channels) for dtype in (np.uint8, np.float32, np.float64) for channels in (1, 3)]
    show_psnr("PSNR, fresh memory", cases, options.side)
    for dtype, channels in cases:
        pair = images(options.side, channels, dtype)
        calls = {
            "cvplugins": lambda pair=pair: structural_similarity(*pair, 255),
            "scikit-image": lambda pair=pair: float(their_ssim(*pair, **PAPER)),
        }
        title = f"SSIM, {np.dtype(dtype).name} x {channels}"
        show(title, calls, 1e-12 if dtype is np.float64 else 1e-6)
        peer = torchmetrics_ssim(*pair)
        if peer is not None:
            show(title, {"cvplugins": calls["cvplugins"], "torchmetrics": peer}, 0.01)
    show_psnr("PSNR, used memory", cases, options.side)
    size = options.features
    one, other = features(4 * size, size, 1), features(3 * size, size, 2)
    statistics_of = [feature_statistics(each) for each in (one, other)]
    calls = {
        "cvplugins": lambda: frechet_distance(*statistics_of).total,
        "SciPy sqrtm": lambda: by_root(*statistics_of),
    }
    show(f"FID of {size} features", calls, 1e-6, repeats=3)


def _version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "missing"


if __name__ == "__main__":
    main()
