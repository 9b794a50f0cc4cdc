"""Ranks. Oracle: what was sent."""

import time

import pytest
import torch
from helpers import run_ranks

from cvplugins.distributed import (
    gather_objects,
    is_distributed,
    raised_on_every_rank,
    rank,
    sum_over_ranks,
    world_size,
)
from cvplugins.errors import UserError


def test_one_process_is_a_world_of_its_own():
    assert not is_distributed()
    assert (rank(), world_size()) == (0, 1)
    assert gather_objects("mine") == ["mine"]
    tensor = torch.tensor([1.0, 2.0])
    assert sum_over_ranks(tensor) is tensor
    assert tensor.tolist() == [1, 2]


def talk():
    pair = torch.distributed.new_group([2, 1])  # ranks of a group are in ascending order
    tensor = torch.tensor([1, 10 ** rank()])
    summed = sum_over_ranks(tensor)
    return {
        "world": (is_distributed(), rank(), world_size()),
        "gathered": gather_objects({"rank": rank(), "text": "x" * 1000 * rank()}),
        "summed": summed.tolist(),
        "in place": summed is tensor,
        "pair": (is_distributed(pair), rank(pair), world_size(pair), gather_objects(rank(), pair)),
    }


@pytest.mark.distributed
def test_three_ranks():
    results = run_ranks(talk, 3)
    everything = [{"rank": r, "text": "x" * 1000 * r} for r in range(3)]
    assert [result["world"] for result in results] == [(True, r, 3) for r in range(3)]
    assert all(result["gathered"] == everything for result in results)
    assert all(result["summed"] == [3, 111] and result["in place"] for result in results)
    assert [result["pair"] for result in results] == [
        (False, 0, 1, [0]),  # outside of the group: alone
        (True, 0, 2, [1, 2]),
        (True, 1, 2, [1, 2]),
    ]


def refuse_on_second():
    try:
        with raised_on_every_rank():
            if rank() == 1:
                raise UserError("a broken image")
    except UserError as error:
        return str(error)


@pytest.mark.distributed
def test_what_one_rank_refuses_all_refuse():
    assert run_ranks(refuse_on_second, 2) == ["process 1: a broken image", "a broken image"]


def fail_on_second():
    if rank() == 1:
        raise RuntimeError("the second rank fails")
    torch.distributed.barrier()


def sleep():
    time.sleep(100)


@pytest.mark.distributed
def test_the_helper_shows_a_failure_and_ends_what_hangs():
    with pytest.raises(RuntimeError, match=r"(?s)fail_on_second.*the second rank fails"):
        run_ranks(fail_on_second, 2)
    with pytest.raises(TimeoutError, match="2 ranks of sleep were not done"):
        run_ranks(sleep, 2, timeout=1)
