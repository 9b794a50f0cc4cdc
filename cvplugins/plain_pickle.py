"""Unpickle plain data: containers, numbers and arrays. What else a pickle asks for is neither imported nor called."""

from __future__ import annotations

import _compat_pickle
import codecs
import pickle
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import IO, Any, ClassVar

import numpy as np

__all__ = ["NotPlainError", "PlainUnpickler", "by_name", "plain_functions"]


class NotPlainError(pickle.UnpicklingError):
    """A pickle asks for more than plain data.

    Attributes:
        what: What it asks for.
    """

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is not plain data")
        self.what = what


_load_build: Any = pickle._Unpickler.dispatch[pickle.BUILD[0]]


# Not the faster class in C: what a file announces there, such as the place of an entry in the memo, becomes memory.
class PlainUnpickler(pickle._Unpickler):
    """An unpickler that finds nothing but what is known, calls nothing but known functions, and changes no class.

    Strings of Python 2 are read as Latin-1, in which NumPy's arrays of that time are written.

    Args:
        file: What to read.
        functions: What the pickle may call, by module and qualified name.
        classes: Of what it may make instances; loading one must not run anything but set its attributes.
        values: What it may name without calling it.
        persistent: Returns what a persistent id stands for; there are none if None.

    Example:
        >>> import io
        >>> PlainUnpickler(io.BytesIO(pickle.dumps({"a": [1, 2.5]}))).load()
        {'a': [1, 2.5]}
        >>> PlainUnpickler(io.BytesIO(pickle.dumps(print))).load()
        Traceback (most recent call last):
        ...
        cvplugins.plain_pickle.NotPlainError: builtins.print is not plain data
    """

    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)
    stack: list[Any]
    append: Callable[[Any], None]
    read: Callable[[int], bytes]

    def __init__(
        self,
        file: IO[bytes],
        functions: Mapping[str, Callable[..., Any]] | None = None,
        classes: Mapping[str, type] | None = None,
        values: Mapping[str, Any] | None = None,
        persistent: Callable[[Any], Any] | None = None,
    ) -> None:
        super().__init__(file, encoding="latin1")
        functions, classes = functions or {}, classes or {}
        self._known = {**(values or {}), **classes, **functions}
        self._callable = {id(each) for each in (*functions.values(), *classes.values())}
        self._classes = tuple(classes.values())
        self._persistent = persistent

    def find_class(self, module: str, name: str) -> Any:
        """Return what is known by a name, which may be one of Python 2."""
        module, name = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
        module = _compat_pickle.IMPORT_MAPPING.get(module, module)
        if f"{module}.{name}" not in self._known:
            raise NotPlainError(f"{module}.{name}")
        return self._known[f"{module}.{name}"]

    def persistent_load(self, identity: Any) -> Any:
        """Return what a persistent id stands for."""
        if self._persistent is None:
            raise pickle.UnpicklingError("it refers to data outside of the pickle")
        return self._persistent(identity)

    def _check_call(self, function: Any, arguments: Any) -> None:
        if id(function) not in self._callable:
            raise NotPlainError(f"a call of {function!r:.80}")
        if not isinstance(arguments, tuple):
            raise pickle.UnpicklingError(f"arguments are a {type(arguments).__name__}, not a tuple")

    def _instantiate(self, kind: Any, arguments: Any) -> None:
        """Make an instance as protocol 0 asks for it."""
        self._check_call(kind, tuple(arguments))
        self.append(kind(*arguments))

    def _load_reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack[-1]
        self._check_call(function, arguments)
        self.stack[-1] = function(*arguments)

    def _load_newobj(self) -> None:
        arguments, kind = self.stack.pop(), self.stack.pop()
        self._check_call(kind, arguments)
        if not isinstance(kind, type):
            raise NotPlainError(f"an instance of {kind!r:.80}")
        self.append(kind.__new__(kind, *arguments))

    def _load_build(self) -> None:
        changed = self.stack[-2]
        if not isinstance(changed, (np.ndarray, np.dtype, OrderedDict, Counter, *self._classes)):
            raise NotPlainError(f"a state for a {type(changed).__name__}")
        _load_build(self)

    def _load_bytearray(self) -> None:
        # Python's own makes room for what is announced before it reads.
        self.append(bytearray(self.read(int.from_bytes(self.read(8), "little"))))

    dispatch[pickle.REDUCE[0]] = _load_reduce
    dispatch[pickle.NEWOBJ[0]] = _load_newobj
    dispatch[pickle.BUILD[0]] = _load_build
    dispatch[pickle.BYTEARRAY8[0]] = _load_bytearray
    del dispatch[pickle.NEWOBJ_EX[0]]  # nothing plain is made with named arguments


def by_name(known: Iterable[Any]) -> dict[str, Any]:
    """Return classes or functions by their module and qualified name."""
    return {f"{each.__module__}.{each.__qualname__}": each for each in known}


def plain_functions() -> dict[str, Callable[..., Any]]:
    """Return what pickles of containers and of NumPy's arrays and numbers call."""
    array, number = np.zeros(1), np.float64(0)
    of_protocol_5: Any = array.__reduce_ex__(5)[0]
    rebuild = {"_reconstruct": _empty_array, "scalar": number.__reduce__()[0]}
    functions: dict[str, Callable[..., Any]] = {
        "collections.OrderedDict": OrderedDict,
        "collections.Counter": Counter,
        "_codecs.encode": _encode,
        "builtins.bytearray": _bytearray,
        "builtins.complex": complex,
        "builtins.set": set,
        "builtins.slice": slice,
        "numpy.dtype": np.dtype,
    }
    # NumPy 1 and NumPy 2 write different names for the same function.
    for core in ("numpy.core", "numpy._core"):
        functions |= {f"{core}.multiarray.{name}": function for name, function in rebuild.items()}
        functions[f"{core}.numeric._frombuffer"] = of_protocol_5
    return functions


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """Return bytes as protocol 2 writes them; ``codecs.encode`` itself looks for modules by the encoding's name."""
    if encoding not in ("latin1", "latin-1"):
        raise NotPlainError(f"_codecs.encode to {encoding!r}")
    return codecs.latin_1_encode(text)[0]


def _bytearray(content: bytes | str = b"", encoding: str = "latin-1") -> bytearray:
    """Return a bytearray of bytes; of a number it would be as large as the file likes."""
    return bytearray(_encode(content, encoding) if isinstance(content, str) else bytes(memoryview(content)))


def _empty_array(kind: type, shape: Sequence[int], dtype: Any) -> Any:
    """Return the array that is given its shape and content afterwards; the pickle may not choose its size here."""
    if kind is not np.ndarray:
        raise NotPlainError(f"an array of type {kind!r:.80}")
    if tuple(shape) != (0,):
        raise pickle.UnpicklingError(f"it has an array of shape {tuple(shape)} without content")
    return np.ndarray((0,), dtype)
