"""Read what ``torch.save`` wrote without running code from it, whole: checksums and sizes are verified."""

from __future__ import annotations

import io
import math
import os
import pickle
import struct
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from .plain_pickle import PlainUnpickler, by_name, plain_functions

__all__ = ["OLD_START", "ZIP_START", "read_plain_pickle", "read_torch_file"]

ZIP_START = b"PK\x03\x04"
# torch's magic number, pickled: files of before torch 1.6, and of _use_new_zipfile_serialization=False.
OLD_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
MAGIC_NUMBER, OLD_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
# What a file may become in memory beyond its own size; only packed archives, and tensors that repeat a value, grow.
GROWTH, ROOM = 50, 2**28

KINDS = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexDouble": torch.complex128,
    "ComplexFloat": torch.complex64,
}


class _Storage(NamedTuple):
    """The memory of tensors, and what its numbers are."""

    memory: Tensor  # of bytes
    dtype: torch.dtype


class _StorageKind(NamedTuple):
    """What a pickle names where torch has a class of storages."""

    dtype: torch.dtype


def read_torch_file(file: IO[bytes], known: Sequence[Any] = ()) -> Any:
    """Return what a file of torch's holds, on the CPU.

    Args:
        file: Opened for reading in binary, at its start.
        known: More classes and functions to take; see :func:`cvplugins.safe_loading.load_plain`.

    Raises:
        pickle.UnpicklingError: It asks for more than plain data, or is no file of torch's.
        zipfile.BadZipFile: It is cut off, or a byte is not what was written.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    start = file.read(len(OLD_START))
    file.seek(0)
    if start.startswith(ZIP_START):
        return _read_archive(file, size, known)
    if start == OLD_START:
        return _read_old(_Bounded(file, size), size, known)
    if not size:
        raise pickle.UnpicklingError("the file is empty")
    raise pickle.UnpicklingError("it is no file of torch.save's")


def read_plain_pickle(file: IO[bytes], known: Sequence[Any] = ()) -> Any:
    """Return what a pickle holds; tensors in it are taken too, as scripts that convert weights write them."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    return _unpickler(_Bounded(file, size), known, None).load()


class _Bounded:
    """A file of which at most what is left is read: a length in it is not believed."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._size = file, size

    def read(self, count: int) -> bytes:
        return self._file.read(max(min(count, self._size - self._file.tell()), 0))

    def readline(self) -> bytes:
        line = self._file.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        return line

    def readinto(self, target: Any) -> int:
        view = memoryview(target).cast("B")
        found = self.read(len(view))
        view[: len(found)] = found
        return len(found)


def _read_archive(file: IO[bytes], size: int, known: Sequence[Any]) -> Any:
    """Read the zip archive that torch writes since 1.6; each member's checksum is verified by reading it to its end."""
    with zipfile.ZipFile(file) as archive:
        members = {info.filename: info for info in archive.infolist()}
        _check_sizes(members, size)
        pickles = [name for name in members if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise pickle.UnpicklingError("it is an archive without data.pkl")
        folder = pickles[0].partition("/")[0]
        if f"{folder}/constants.pkl" in members:
            raise pickle.UnpicklingError("it is a TorchScript archive, which holds code beside the weights")
        for info in members.values():
            if not info.CRC and info.file_size:  # torch.serialization.set_crc32_options(False) leaves it at 0
                del info.CRC
        small = {name: archive.read(info) for name, info in members.items() if not name.startswith(f"{folder}/data/")}
        if small.get(f"{folder}/byteorder", sys.byteorder.encode()).decode() != sys.byteorder:
            raise pickle.UnpicklingError("it was written on a machine of another byte order")
        storages: dict[str, Tensor] = {}

        def storage(identity: Any) -> _Storage:
            dtype, key, count = _parsed(identity)
            if key not in storages:
                storages[key] = _memory(archive, members[f"{folder}/data/{key}"])
            if count * dtype.itemsize > len(storages[key]):
                raise pickle.UnpicklingError(f"storage {key} is smaller than its {count} numbers")
            return _Storage(storages[key], dtype)

        pickled = small[pickles[0]]
        return _unpickler(_Bounded(io.BytesIO(pickled), len(pickled)), known, storage).load()


def _check_sizes(members: Mapping[str, zipfile.ZipInfo], size: int) -> None:
    """Raise unless the members can all lie in the archive."""
    stored = sum(info.file_size for info in members.values() if info.compress_type == zipfile.ZIP_STORED)
    if stored > size:
        raise pickle.UnpicklingError(f"its members have {stored} bytes, the file has {size}")
    if sum(info.file_size for info in members.values()) > GROWTH * size + ROOM:
        raise pickle.UnpicklingError("it is packed too tightly")


def _memory(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Tensor:
    memory = torch.empty(info.file_size, dtype=torch.uint8)
    view: Any = memory.numpy().data
    with archive.open(info) as member:
        done = 0
        while piece := member.read(2**20):
            view[done : done + len(piece)] = piece
            done += len(piece)
    if done != info.file_size:
        raise zipfile.BadZipFile(f"{info.filename} ends early")
    return memory


def _read_old(file: _Bounded, size: int, known: Sequence[Any]) -> Any:
    """Read the form of before torch 1.6: pickles one after the other, then the storages."""
    if _unpickler(file, known, None).load() != MAGIC_NUMBER or _unpickler(file, known, None).load() != OLD_PROTOCOL:
        raise pickle.UnpicklingError("it is of another protocol than torch's")
    system = _unpickler(file, known, None).load()
    if isinstance(system, dict) and system.get("little_endian", True) != (sys.byteorder == "little"):
        raise pickle.UnpicklingError("it was written on a machine of another byte order")
    storages: dict[str, _Storage] = {}

    def storage(identity: Any) -> _Storage:
        dtype, key, count = _parsed(identity)
        if key not in storages:
            announced = sum(len(each.memory) for each in storages.values()) + count * dtype.itemsize
            if announced > size:
                raise pickle.UnpicklingError(f"its storages have {announced} bytes, the file has {size}")
            storages[key] = _Storage(torch.empty(count * dtype.itemsize, dtype=torch.uint8), dtype)
        return storages[key]

    found = _unpickler(file, known, storage).load()
    for key in _unpickler(file, known, None).load():
        memory, dtype = storages[key]
        (count,) = struct.unpack("<q", file.read(8))
        if count * dtype.itemsize != len(memory) or file.readinto(memory.numpy()) != len(memory):
            raise pickle.UnpicklingError(f"storage {key} ends early")
    return found


def _parsed(identity: Any) -> tuple[torch.dtype, str, int]:
    """Return the dtype, the key and the count of a storage from what the pickle says of it."""
    if not isinstance(identity, tuple) or len(identity) < 5 or identity[0] != "storage":
        raise pickle.UnpicklingError("it refers to something else than a storage")
    _, kind, key, _, count, *view = identity
    if not isinstance(kind, _StorageKind) or not isinstance(key, str) or not _is_natural(count) or any(view):
        raise pickle.UnpicklingError(f"it has a storage of an unknown form ({identity[1:]!r:.100})")
    return kind.dtype, key, count


def _is_natural(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value < 2**62


def _unpickler(file: Any, known: Sequence[Any], persistent: Any) -> PlainUnpickler:
    classes = by_name(each for each in known if isinstance(each, type))
    functions = by_name(each for each in known if not isinstance(each, type))
    return PlainUnpickler(file, plain_functions() | _REBUILD | functions, classes, _VALUES, persistent)


def _tensor(
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    requires_grad: Any = False,
    hooks: Any = None,
    metadata: Any = None,
) -> Tensor:
    """Do what torch._utils._rebuild_tensor_v2 does; torch's makes a storage larger that is too small."""
    if not isinstance(storage, _Storage):
        raise pickle.UnpicklingError(f"a tensor lies in a {type(storage).__name__}, not in a storage")
    if metadata:
        raise pickle.UnpicklingError("it has a tensor that is conjugate or negative; save it with resolve_conj()")
    size, stride = tuple(size), tuple(stride)
    if not all(map(_is_natural, (offset, *size, *stride))) or len(size) != len(stride):
        raise pickle.UnpicklingError(f"it has a tensor of size {size} and stride {stride}")
    memory, dtype = storage
    count = len(memory) // dtype.itemsize
    end = offset + sum((side - 1) * step for side, step in zip(size, stride, strict=True)) + 1
    total = math.prod(size)
    if total and (end > count or total > max(count, ROOM)):
        raise pickle.UnpicklingError(f"it has a tensor of size {size} in a storage of {count} numbers")
    tensor = torch.empty(0, dtype=dtype).set_(memory.untyped_storage(), offset, size, stride)
    return tensor.requires_grad_(bool(requires_grad) and (dtype.is_floating_point or dtype.is_complex))


def _tensor_of_untyped(
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    requires_grad: Any,
    hooks: Any,
    dtype: Any,
    metadata: Any = None,
) -> Tensor:
    """Do what torch._utils._rebuild_tensor_v3 does, for dtypes without a class of storages."""
    if not isinstance(storage, _Storage) or not isinstance(dtype, torch.dtype):
        raise pickle.UnpicklingError("it has a tensor of an unknown form")
    return _tensor(_Storage(storage.memory, dtype), offset, size, stride, requires_grad, hooks, metadata)


def _parameter(data: Any, requires_grad: Any = True, hooks: Any = None, state: Any = None) -> nn.Parameter:
    if not isinstance(data, Tensor):
        raise pickle.UnpicklingError(f"a parameter is a {type(data).__name__}, not a tensor")
    return nn.Parameter(data, bool(requires_grad))


def _of_type(rebuild: Any, kind: Any, arguments: Any, state: Any) -> Any:
    """Do what torch._tensor._rebuild_from_type_v2 does for tensors with attributes, which are left out."""
    if rebuild not in _REBUILD.values() or not isinstance(arguments, tuple):
        raise pickle.UnpicklingError("it has a tensor of an unknown form")
    return rebuild(*arguments)


def _of_array(array: Any, dtype: Any, device: Any = None, requires_grad: Any = False) -> Tensor:
    if not isinstance(array, np.ndarray) or not isinstance(dtype, torch.dtype):
        raise pickle.UnpicklingError("it has a tensor of an unknown form")
    return torch.from_numpy(array).to(dtype).requires_grad_(bool(requires_grad))


def _storage_of_bytes(content: Any) -> Any:
    """Return the storage of a tensor that pickle wrote, and not torch.save: in torch's form, within the pickle."""
    return read_torch_file(io.BytesIO(bytes(memoryview(content))))


_REBUILD: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_untyped,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._utils._rebuild_device_tensor_from_numpy": _of_array,
    "torch._tensor._rebuild_from_type_v2": _of_type,
    "torch.storage._load_from_bytes": _storage_of_bytes,
    "torch.Size": torch.Size,
    "torch.device": torch.device,
}
_VALUES: dict[str, Any] = {
    "numpy.ndarray": np.ndarray,
    "torch.Tensor": Tensor,
    "torch.nn.parameter.Parameter": nn.Parameter,
    "torch.storage.UntypedStorage": _StorageKind(torch.uint8),
    **{f"torch.{name}": value for name, value in vars(torch).items() if isinstance(value, torch.dtype)},
    **{
        f"torch.{device}{name}Storage": _StorageKind(dtype) for name, dtype in KINDS.items() for device in ("", "cuda.")
    },
}
