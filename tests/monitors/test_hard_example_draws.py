"""Hard images among the draws of ordinary ones."""

import numpy as np
import pytest

from cvplugins.monitors import HardExamplePlan, limited_ratio, mix_in


@pytest.mark.parametrize("ratio", [0.1, 0.25, 1.0])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_mixes_exactly_the_ratio_and_every_hard_image_equally_often(ratio, world_size):
    pool = [1000 + index for index in range(7)]
    counts, hard = np.zeros(7, int), 0
    for number in range(world_size):
        indices = list(range(number, 600, world_size))
        drawn = list(mix_in(indices, pool, ratio, (0, 3), number, world_size))
        assert len(drawn) == len(indices)
        assert all(a == b for a, b in zip(drawn, indices, strict=True) if a < 1000)
        own = [index - 1000 for index in drawn if index >= 1000]
        assert abs(len(own) - ratio * len(indices)) <= 1
        hard += len(own)
        counts += np.bincount(own, minlength=7)
    assert counts.max() - counts.min() <= world_size
    for begin in range(0, len(indices) - 20, 20):  # evenly spread
        assert abs(sum(index >= 1000 for index in drawn[begin : begin + 20]) - 20 * ratio) <= 1


def test_mixing_depends_on_the_seed_alone():
    pool = [100, 101, 102]
    once = list(mix_in(range(50), pool, 0.3, (0, 1)))
    assert list(mix_in(range(50), pool, 0.3, (0, 1))) == once
    assert list(mix_in(range(50), pool, 0.3, (0, 2))) != once
    assert list(mix_in(range(50), [], 0.3, (0, 1))) == list(range(50))
    assert list(mix_in(range(50), pool, 0.0, (0, 1))) == list(range(50))


def test_wrong_ratios_are_named():
    with pytest.raises(ValueError, match=r"ratio is 1\.5; it must be from 0 to 1"):
        limited_ratio(1.5, 10, 1, 10)
    with pytest.raises(ValueError, match="max_repeats is 0; it must be above 0"):
        limited_ratio(0.5, 0, 1, 10)


def test_a_plan_keeps_the_newest_pools():
    plan = HardExamplePlan(0.5, 10, keep=3)
    for part in range(6):
        plan.add(part, [part])
    assert plan.pools == {3: [3], 4: [4], 5: [5]}
