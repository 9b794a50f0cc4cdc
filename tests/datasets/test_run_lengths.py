"""Run lengths against pycocotools, which writes them."""

import numpy as np
import pytest

from cvplugins.datasets.run_lengths import runs_problem, size_problem, sums_of_compressed

coding = pytest.importorskip("pycocotools.mask")


def compressed(seed):
    generator = np.random.default_rng(seed)
    size = generator.integers(1, 400, 2)
    mask = generator.random(size) < generator.choice([0, 0.001, 0.5, 0.999, 1])
    return coding.encode(np.asfortranarray(mask, np.uint8))


def test_sums_are_the_pixels_of_what_pycocotools_writes():
    masks = [compressed(seed) for seed in range(200)]
    sums = sums_of_compressed([mask["counts"] for mask in masks])
    assert sums.tolist() == [mask["size"][0] * mask["size"][1] for mask in masks]


def test_sums_equal_the_runs_one_by_one():
    runs = [[0, 5, 70, 1, 0, 12], [1234567, 7, 1, 1, 1, 1, 900], [3]]
    for each in runs:
        pixels = sum(each)
        written = coding.frPyObjects({"size": [1, pixels], "counts": each}, 1, pixels)["counts"]
        assert sums_of_compressed([written]).tolist() == [pixels]


@pytest.mark.parametrize(
    "counts", [b"", b"P", b"04d", "é".encode(), b"\x00", b"04db0\x00", b"PPPPPPPPPPP0", b"o", b" ", b"04~0"]
)
def test_what_is_no_run_length(counts):
    """Digits lie between 0 and o, the last of a number below P; a run is not negative."""
    whole = b"04db0"
    assert sums_of_compressed([whole, counts, whole]).tolist() == [600, -1, 600]


def test_a_damaged_mask_never_has_its_sum_by_chance_of_being_negative():
    """Whatever bytes come: a sum is that of runs of at least 0, decoded one by one in Python."""
    generator = np.random.default_rng(0)
    damaged = [bytes(generator.integers(40, 120, generator.integers(1, 9), dtype=np.uint8)) for _ in range(3000)]
    sums = sums_of_compressed(damaged).tolist()
    assert sums == [slow_sum(each) for each in damaged]
    assert len({each for each in sums if each >= 0}) > 50


def slow_sum(counts):
    """maskApi.c's ``rleFrString`` with numbers of any size."""
    runs, place = [], 0
    while place < len(counts):
        value, digit = 0, 0
        while True:
            if place == len(counts) or not 0 <= counts[place] - 48 < 64 or digit > 6:
                return -1
            code = counts[place] - 48
            value |= (code & 31) << (5 * digit)
            place, digit = place + 1, digit + 1
            if not code & 32:
                break
        if code & 16:
            value -= 1 << (5 * digit)
        if len(runs) > 2:
            value += runs[-2]
        if not 0 <= value <= 2**30:
            return -1
        runs.append(value)
    return sum(runs)


def test_uncompressed_runs():
    assert runs_problem([0, 4.0, 8], [3, 4]) is None
    assert runs_problem([0, 4.5, 7.5], [3, 4]) == "has 4.5 in its counts; expected whole numbers of at least 0"
    assert runs_problem([0, -1, 13], [3, 4]) == "has -1 in its counts; expected whole numbers of at least 0"
    assert runs_problem([True, 11], [3, 4]) == "has true in its counts; expected whole numbers of at least 0"
    assert "sum is 11; expected 12" in runs_problem([11], [3, 4])


def test_sizes():
    assert size_problem([20, 30], 20, 30) is None
    assert size_problem([20, 30], 0, 0) is None
    assert "height and width are swapped" in size_problem([30, 20], 20, 30)
    for size in ([20], [20, 30, 1], [0, 30], [-20, -30], [20.5, 30], [2**20, 2**20], ["20", "30"], None, [True, 30]):
        assert "expected [height, width] of the image" in size_problem(size, 0, 0)
