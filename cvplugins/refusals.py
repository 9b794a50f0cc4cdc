"""What a constructor refused, in one line: the key and its value, why, and what is accepted."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from .errors import first_line

__all__ = ["accepted_options", "did_you_mean", "explain_refusal", "named_option", "shown"]

UNKNOWN = re.compile(r"got an unexpected keyword argument '(\w+)'")
MISSING = re.compile(r"missing \d+ required (?:positional|keyword-only) arguments?: (.*)")
NUMBERS = (int, float)
LONGEST = 80  # characters of a value in a message


def explain_refusal(
    error: BaseException, path: str, options: Mapping[str, Any], kind: Any = None, suspects: Sequence[str] = ()
) -> str:
    """Return one line about a constructor that did not take its options.

    Args:
        error: What the constructor raised, or the call of it.
        path: Where its options are in the config, such as ``"optim_wrapper.optimizer"``.
        options: What the config gives; ``type`` is not one of them.
        kind: The class or function, None if it is not known.
        suspects: Options to blame where the error does not say which one it is about.

    Example:
        >>> def adam(lr=0.001, eps=1e-8):
        ...     if lr < 0:
        ...         raise ValueError(f"Invalid lr: {lr}")
        >>> for options in ({"lrr": 0.1}, {"lr": -1, "eps": 0.1}):
        ...     try:
        ...         adam(**options)
        ...     except Exception as error:
        ...         explain_refusal(error, "optimizer", options, adam)
        'optimizer.lrr = 0.1: adam has no option lrr; did you mean lr? It has lr, eps'
        'optimizer.lr = -1: adam does not take it (ValueError: Invalid lr: -1); its default is 0.001'
    """
    options = {name: value for name, value in options.items() if name not in ("type", "_scope_")}
    name = getattr(kind, "__name__", None) or "what is built from it"
    accepted = accepted_options(kind)
    unknown = UNKNOWN.search(str(error))
    if isinstance(error, TypeError) and unknown and unknown[1] in options:
        guess = did_you_mean(unknown[1], accepted)
        known = f"{'It' if guess else 'it'} has {', '.join(accepted) or 'none'}"
        tail = " ".join(filter(None, [f"{name} has no option {unknown[1]};", guess, known]))
        return f"{path}.{unknown[1]} = {shown(options[unknown[1]])}: {tail}"
    missing = MISSING.search(str(error))
    if isinstance(error, TypeError) and missing:
        wanted = [each for each in re.findall(r"'(\w+)'", missing[1]) if each in accepted] or [missing[1]]
        return f"{path}: {name} needs {', '.join(wanted)}; it has {', '.join(accepted)}"
    said = f"{type(error).__name__}: {first_line(error)}"
    for key in _suspects(str(error), options, accepted, suspects):
        return f"{path}.{key} = {shown(options[key])}: {name} does not take it ({said}){_expected(accepted.get(key))}"
    given = ", ".join(f"{key}={shown(value, 40)}" for key, value in options.items() if _is_plain(value))
    return f"{path}: {name} cannot be built ({said})" + (f"; it was given {given}" if given else "")


def accepted_options(kind: Any) -> dict[str, inspect.Parameter]:
    """Return the options of a class or function by name; a class that hands others on has those of its bases too."""
    found: dict[str, inspect.Parameter] = {}
    functions: list[Callable[..., Any]] = [kind] if callable(kind) else []
    if isinstance(kind, type) and not hasattr(kind, "__signature__"):  # which says itself what it takes
        functions = [vars(each)["__init__"] for each in kind.__mro__ if "__init__" in vars(each)]
    for function in functions:
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except (TypeError, ValueError):  # written in C
            break
        by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        for each in parameters:
            if each.kind in by_name and each.name != "self":
                found.setdefault(each.name, each)
        if not any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters):
            break
    return found


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a question with the closest names, or nothing.

    >>> did_you_mean("gama", ["gamma", "alpha"])
    'did you mean gamma?'
    """
    close = difflib.get_close_matches(str(name), [str(each) for each in known], n=2, cutoff=0.7)
    return f"did you mean {' or '.join(close)}?" if close else ""


def named_option(error: BaseException, options: Mapping[str, Any]) -> str | None:
    """Return the option whose name and value an error says, None if there is none.

    >>> named_option(ValueError("expected 1 or more, but got batch_size=0"), {"batch_size": 0, "shuffle": True})
    'batch_size'
    """
    message = str(error)
    named = [key for key, value in options.items() if _names(message, key) and _quotes(message, value)]
    return named[0] if named else None


def shown(value: Any, longest: int = LONGEST) -> str:
    """Return a value for a message, cut if it is long."""
    text = " ".join(repr(value).split())
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def _suspects(
    message: str, options: Mapping[str, Any], accepted: Mapping[str, inspect.Parameter], suspects: Sequence[str]
) -> list[str]:
    """Return the options that an error is probably about, the likeliest first."""
    odd = [key for key, value in options.items() if _is_odd(value, accepted.get(key))]
    named = [key for key in options if _names(message, key)]
    quoted = [key for key, value in options.items() if _is_plain(value) and _quotes(message, value)]
    both = [key for key in named if key in quoted]
    only = list(options) if len(options) == 1 else []
    surely = both or [key for key in odd if key in named or key in quoted]
    return surely or quoted or named or odd or list(suspects) or only


def _names(message: str, key: str) -> bool:
    return re.search(rf"(?<![\w.]){re.escape(key)}(?!\w)", message) is not None


def _quotes(message: str, value: Any) -> bool:
    """Return whether an error says a value: a word anywhere, a number behind what it is the value of."""
    if isinstance(value, str):
        return bool(value) and re.search(rf"(?<!\w){re.escape(value)}(?!\w)", message) is not None
    return re.search(rf"(?:[:=]|got|is|,) ?{re.escape(repr(value))}(?![\w.]*\w)", message) is not None


def _is_odd(value: Any, option: inspect.Parameter | None) -> bool:
    """Return whether a value is a word where the default is a number, or the other way round."""
    default = option.default if option is not None else None
    if isinstance(default, bool) or not isinstance(default, (*NUMBERS, str)):
        annotation = str(option.annotation) if option is not None else ""
        is_number = re.search(r"\b(?:float|int)\b", annotation) and not re.search(r"\bstr\b", annotation)
        return bool(is_number) and isinstance(value, str)
    if isinstance(default, str):
        return isinstance(value, NUMBERS)
    return not isinstance(value, NUMBERS) and value is not None


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str)) or _is_short(value)


def _is_short(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(repr(value)) < 40


def _expected(option: inspect.Parameter | None) -> str:
    if option is None or option.default in (inspect.Parameter.empty, None):
        return ""
    return f"; its default is {shown(option.default)}"
