"""Options of a config. Oracle: the signature that takes them."""

import pytest

from cvplugins.errors import UserError
from cvplugins.options import check_options


def hook(name="a", interval=1, share=0.5, is_on=True, margin: "float | str" = 1.0, other=None):
    """Take options."""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"is_on": "maybe"}, "hook: is_on is 'maybe'; expected True or False, such as its default True"),
        ({"is_on": "False"}, "expected True or False"),  # a word is true
        ({"interval": "1"}, "hook: interval is '1'; expected a number, such as its default 1"),
        ({"share": "half"}, "expected a number, such as its default 0.5"),
        ({"intervl": 1}, "hook has no option intervl; it has name, interval"),
    ],
)
def test_words_in_the_place_of_numbers_and_truths(options, message):
    with pytest.raises(UserError, match=message):
        check_options(hook, options)


def test_values_that_work_pass():
    check_options(hook, {"name": "b", "interval": 2.0, "share": 1, "is_on": 0, "margin": "soft", "other": "x"})
