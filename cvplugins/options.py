"""Options that a config gives: are there such, and are all there that are needed?"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

from .errors import UserError

__all__ = ["check_options", "joined_signature", "plain"]


def check_options(function: Callable[..., Any], options: Collection[str], name: str | None = None) -> None:
    """Raise unless a function or class takes these options.

    Args:
        function: What will be called with them by name.
        options: Their names; or with their values, which have to be numbers, or truths, where the defaults are.
        name: What the message calls the function; its own name if None.

    Raises:
        UserError: An option is unknown, missing or a word; the message lists those that there are.

    Example:
        >>> check_options(lambda gamma=2.0: None, ["gama"], "FocalLoss")
        Traceback (most recent call last):
        ...
        cvplugins.errors.UserError: FocalLoss has no option gama; it has gamma
    """
    name = name or function.__name__
    accepted = inspect.signature(function).parameters
    unknown = sorted(set(options) - set(accepted))
    if unknown:
        raise UserError(f"{name} has no option {', '.join(unknown)}; it has {', '.join(accepted) or 'none'}")
    needed = {each for each, option in accepted.items() if option.default is inspect.Parameter.empty}
    missing = sorted(needed - set(options))
    if missing:
        raise UserError(f"{name} needs {', '.join(missing)}; it has {', '.join(accepted)}")
    for key, value in options.items() if isinstance(options, Mapping) else ():
        default, words = accepted[key].default, "str" in str(accepted[key].annotation)
        if isinstance(value, str) and isinstance(default, (bool, int, float)) and not words:
            wanted = "True or False" if isinstance(default, bool) else "a number"
            raise UserError(f"{name}: {key} is {value!r}; expected {wanted}, such as its default {default}")


def joined_signature(inner: Callable[..., Any], outer: type) -> inspect.Signature:
    """Return the options of a class that hands those which it does not know itself to another one.

    Args:
        inner: Gets them.
        outer: Its own options, and those of its bases, are keyword-only.

    Example:
        >>> class Base:
        ...     def __init__(self, *arguments, folder=".", **options): ...
        >>> class Outer(Base):
        ...     def __init__(self, *arguments, key="a", **options): ...
        >>> joined_signature(lambda l1, l2=0.0: None, Outer)
        <Signature (l1, l2=0.0, *, key='a', folder='.')>
    """
    signature = inspect.signature(inner)
    found = dict(signature.parameters)
    for each in outer.__mro__:
        if "__init__" in vars(each):
            options = inspect.signature(vars(each)["__init__"]).parameters.values()
            for option in options:
                if option.kind is inspect.Parameter.KEYWORD_ONLY:
                    found.setdefault(option.name, option)
    return signature.replace(parameters=list(found.values()))


def plain(value: Any) -> Any:
    """Return dicts and lists in place of what frameworks make of them, such as yacs and omegaconf.

    >>> plain({"points": ((0, 0.0), (10, 1.0))})
    {'points': [[0, 0.0], [10, 1.0]]}
    """
    if isinstance(value, Mapping):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return value
