"""Replay files whose content is not what it should be: one line each, and nothing of the file runs."""

import pytest
import torch

from cvplugins.errors import UserError
from cvplugins.monitors import Replay
from cvplugins.monitors.random_state import random_state

pytestmark = pytest.mark.openmmlab


def content():
    """A replay of the small model, as the guard writes it."""
    from small_runner import SmallModel

    random = random_state()
    return {
        "format": "cvplugins replay 1",
        "iteration": 3,
        "faults": [("loss", "loss", "NaN", 0)],
        "images": ["a.jpg"],
        "model": SmallModel().state_dict(),
        "optimizers": [],
        "random": random,
        "batch": {"inputs": torch.zeros(2, 1), "target": torch.zeros(2, 1)},
    }


@pytest.fixture
def answer(tmp_path):
    """Replay a file with changed fields; return the one line that it is answered with."""
    from small_runner import SmallModel

    from cvplugins.cli.replay_files import replay

    def _answer(**changes):
        path = tmp_path / "iter_3_rank0.pt"
        torch.save({key: value for key, value in (content() | changes).items() if value is not KeyError}, path)
        before = torch.get_rng_state()
        with pytest.raises(UserError) as caught:
            replay(path, model=SmallModel())
        assert torch.equal(torch.get_rng_state(), before) or "cannot be repeated" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert str(caught.value).startswith(f"replay file {path}")
        return str(caught.value)

    return _answer


def test_fields_that_are_missing_unknown_or_of_another_type(answer):
    """Oracle: the fields of Replay and their types."""
    for name in ("iteration", "faults", "images", "model", "random", "batch"):
        assert f"it has no {name}" in answer(**{name: KeyError})
    assert "it has the unknown 'more'" in answer(more=1)
    for name in ("iteration", "faults", "images", "model", "optimizers", "random", "evaluating", "frozen", "framework"):
        for value in (None, 1.5):
            assert f"its {name} is a {type(value).__name__}" in answer(**{name: value})
    assert "its images are not all words" in answer(images=[3])
    assert "its faults have" in answer(faults=[("loss",)])
    assert "is of 'keras'" in answer(framework="keras")
    for autocast in (("cpu",), ("tpu", "bfloat16"), ("cpu", "load"), ("cpu", 16)):
        assert "its autocast is" in answer(autocast=autocast)


def test_weights_of_another_model_or_dtype(answer):
    model = content()["model"]
    first = next(iter(model))
    assert f"{first} is missing" in answer(model={name: value for name, value in model.items() if name != first})
    assert "other is unknown" in answer(model={**model, "other": torch.zeros(1)})
    assert "of torch.float64, not" in answer(model={name: value.double() for name, value in model.items()})
    assert "is (7,) of" in answer(model={**model, first: torch.zeros(7)})
    assert "not made of tensors" in answer(model={**model, first: 3})


def test_a_random_state_that_is_none(answer):
    random = content()["random"]
    for name, value in (
        ("python", (3, (1, 2), None)),
        ("numpy", (torch.zeros(3), 1, 0, 0.0)),
        ("torch", torch.zeros(3)),
    ):
        assert "its random state is not one" in answer(random={**random, name: value})
    assert "its random state is not one" in answer(random={})


def test_a_batch_of_another_model(answer):
    for batch in (None, [], {"inputs": torch.zeros(2, 9), "target": torch.zeros(2, 1)}, {"inputs": "a word"}):
        assert "its iteration cannot be repeated with this config" in answer(batch=batch)


def test_what_was_written_is_replayed(tmp_path):
    from small_runner import SmallModel

    from cvplugins.cli.replay_files import load_replay, replay

    path = tmp_path / "iter_3_rank0.pt"
    Replay(**{name: value for name, value in content().items() if name != "format"}).save(path)
    assert load_replay(path).iteration == 3
    reproduced, text = replay(path, model=SmallModel())
    assert not reproduced
    assert "again: everything is finite" in text
