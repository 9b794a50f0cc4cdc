"""Lines about constructors of several kinds; each names the one option that is wrong in the call."""

import inspect

import pytest
import torch

from cvplugins.refusals import explain_refusal


class Base:
    def __init__(self, width: int, depth=18):
        self.width, self.depth = width, depth


class Derived(Base):
    def __init__(self, *, colour="red", **kwargs):
        super().__init__(**kwargs)


def line(kind, **options):
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever a constructor raises
        kind(**options)
    return explain_refusal(caught.value, "model.part", options, kind)


def test_options_of_bases_count_where_a_class_hands_them_on():
    assert line(Derived, width=1, dept=2).startswith(
        "model.part.dept = 2: Derived has no option dept; did you mean depth?"
    )
    assert line(Derived, colour="blue") == "model.part: Derived needs width; it has colour, width, depth"


def test_a_class_may_say_itself_what_it_takes():
    class Wrapped:
        __signature__ = inspect.signature(Base)

        def __init__(self, **options):
            Base(**options)

    assert line(Wrapped, width=1, dept=2).endswith("did you mean depth? It has width, depth")


@pytest.mark.parametrize(
    ("options", "key"),
    [({"lr": "fast"}, "lr"), ({"lr": -1.0}, "lr"), ({"betas": (0.9, 2.0)}, "betas"), ({"eps": -1e-8}, "eps")],
)
def test_torchs_optimizers_say_no_key_in_most_cases(options, key):
    parameters = [torch.nn.Parameter(torch.zeros(1))]

    def adam(lr=0.001, betas=(0.9, 0.999), eps=1e-8):
        return torch.optim.Adam(parameters, lr=lr, betas=betas, eps=eps)

    assert line(adam, **options).startswith(f"model.part.{key} = ")


def test_a_value_that_an_error_says_is_blamed_before_one_of_an_odd_type():
    def build(name="a", size=3):
        raise KeyError(f"there is no {name}")

    assert line(build, name="b", size="3").startswith("model.part.name = 'b'")


def test_what_cannot_be_told_is_listed():
    def build(one=1, two=2):
        raise ValueError("no")

    assert line(build, one=5, two=6) == "model.part: build cannot be built (ValueError: no); it was given one=5, two=6"
