"""Our reader of torch's files against torch's own, and against files made to do harm."""

import io
import os
import pickle
import resource
import struct
import warnings
import zipfile
from collections import Counter, OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from cvplugins import torch_files
from cvplugins.errors import UserError
from cvplugins.plain_pickle import NotPlainError
from cvplugins.safe_loading import load_plain, load_plain_pickle, open_checkpoint
from cvplugins.torch_files import OLD_START

DTYPES = (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
# Those that torch saves without a class of storages, which it can since 2.3.
NEW_DTYPES = [torch.uint16, torch.float8_e4m3fn] if hasattr(torch, "uint16") else []


def content():
    """Everything that a checkpoint may hold."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.rand(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    numbers = torch.arange(100.0)
    return {
        "state_dict": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "parameters": [nn.Parameter(torch.rand(2, 2)), nn.Parameter(torch.rand(2), requires_grad=False)],
        "views": [
            numbers[10:50:3],
            numbers.reshape(10, 10).t(),
            torch.ones(1).expand(1000),
            torch.rand(1, 3, 4, 4)[..., 1:],
        ],
        "shapes": [
            torch.empty(0, 3),
            torch.tensor(3),
            torch.rand(1, 3, 4, 4).contiguous(memory_format=torch.channels_last),
        ],
        "dtypes": [torch.ones(3).to(dtype) for dtype in (*DTYPES, torch.bool, torch.complex64, torch.complex128)],
        "arrays": [np.arange(3), np.float64(3), np.array(["a", None], dtype=object), np.asfortranarray(np.eye(3)[:2])],
        "names": [torch.Size([1, 2]), torch.device("cpu"), torch.float32],
        "containers": [OrderedDict(a=1), Counter("aab"), {1, 2}, bytearray(b"ab"), b"\xe4", 1j, slice(1, 2), (1, None)],
        "random": torch.get_rng_state(),
        "large": 2**200,
        "shared": (numbers, numbers[:5]),
    }


def assert_same(found, wanted):
    assert type(found) is type(wanted)
    if isinstance(wanted, torch.Tensor):
        for name in ("dtype", "shape", "requires_grad"):
            assert getattr(found, name) == getattr(wanted, name)
        assert found.stride() == wanted.stride()
        assert bytes_of(found) == bytes_of(wanted)
    elif isinstance(wanted, np.ndarray):
        assert (found.dtype, found.tolist()) == (wanted.dtype, wanted.tolist())
    elif isinstance(wanted, dict):
        assert list(found) == list(wanted)
        for name in wanted:
            assert_same(found[name], wanted[name])
        assert getattr(found, "_metadata", None) == getattr(wanted, "_metadata", None)
    elif isinstance(wanted, (list, tuple)):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert_same(one, other)
    else:
        assert found == wanted


def bytes_of(tensor):
    return tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


@pytest.mark.parametrize("new_form", [True, False])
def test_what_torch_wrote_is_read_as_torch_reads_it(tmp_path, new_form):
    """Oracle: torch.load."""
    written = content() | ({"new": [torch.ones(2).to(dtype) for dtype in NEW_DTYPES]} if new_form else {})
    torch.save(written, tmp_path / "a.pth", _use_new_zipfile_serialization=new_form)
    found = load_plain(tmp_path / "a.pth")
    assert_same(found, torch.load(tmp_path / "a.pth", weights_only=False))
    assert found["shared"][0].data_ptr() == found["shared"][1].data_ptr()


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_tensors_that_pickle_wrote(tmp_path, protocol):
    """Mask2Former's tool that converts Swin's weights writes such files."""
    weights = content()["state_dict"]
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"model": weights}, protocol))
    assert_same(load_plain_pickle(tmp_path / "a.pkl"), {"model": weights})


def test_a_flipped_byte_is_found_or_changes_nothing(tmp_path):
    """Oracle: what was written."""
    written = {"state_dict": {"w": torch.rand(9, 9)}, "meta": {"epoch": 3}}
    path = tmp_path / "a.pth"
    torch.save(written, path)
    whole = path.read_bytes()
    start = whole.index(written["state_dict"]["w"].numpy().tobytes())
    found = 0
    for place in [*range(start, start + 324, 7), *range(0, len(whole), 17)]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        try:
            assert_same(open_checkpoint(path), written)
        except UserError:
            found += 1
    assert found > 324 // 7


def test_a_file_that_is_cut_off(tmp_path):
    for new_form in (True, False):
        torch.save({"w": torch.rand(9, 9)}, tmp_path / "a.pth", _use_new_zipfile_serialization=new_form)
        whole = (tmp_path / "a.pth").read_bytes()
        for end in range(0, len(whole), 31):
            (tmp_path / "a.pth").write_bytes(whole[:end])
            with pytest.raises(UserError, match="cannot be read"):
                open_checkpoint(tmp_path / "a.pth")


def test_a_file_without_checksums(tmp_path):
    options = torch.serialization
    if not hasattr(options, "set_crc32_options"):
        pytest.skip("this torch always writes them")
    options.set_crc32_options(False)
    try:
        torch.save({"w": torch.ones(3)}, tmp_path / "a.pth")
    finally:
        options.set_crc32_options(True)
    assert open_checkpoint(tmp_path / "a.pth")["w"].tolist() == [1, 1, 1]


# Each announces gigabytes, and the last four ask for them in other ways.
GREEDY = {
    "memo": b"\x80\x02}r\xff\xff\xff\x7f0.",
    "text": b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"a.",
    "bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"a.",
    "bytearray": b"\x80\x05\x96" + struct.pack("<Q", 2**34) + b"a.",
    "frame": b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b"}a.",
    "number": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b".",
    "call": b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.",
    "array": b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nJ\xff\xff\xff\x7f\x85U\x01btR.",
    "depth": b"\x80\x02" + b"]" * 20000 + b"a" * 19999 + b".",
    "digits": b"L" + b"9" * 100000 + b"L\n.",
}


def zipped(pickled, **members):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as target:
        for name, value in {"data.pkl": pickled, "version": b"3", **members}.items():
            target.writestr(f"a/{name}", value)
    return archive.getvalue()


def with_tensor(count, size, stride, offset=0):
    """A file with one tensor in a storage of three numbers, which says something else of it."""

    class Storage:
        pass

    class Tensor:
        def __reduce__(self):
            return torch._utils._rebuild_tensor_v2, (Storage(), offset, size, stride, False, OrderedDict())

    class Pickler(pickle.Pickler):
        def persistent_id(self, each):
            return ("storage", torch.FloatStorage, "0", "cpu", count) if isinstance(each, Storage) else None

    pickled = io.BytesIO()
    Pickler(pickled, 2).dump({"w": Tensor()})
    return zipped(pickled.getvalue(), **{"data/0": bytes(12)})


def packed():
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("a/data.pkl", bytes(2**24))
    return archive.getvalue()


def test_lengths_in_a_file_become_no_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_files, "ROOM", 2**20)
    assert load_archive(tmp_path, with_tensor(3, (3,), (1,)))["w"].tolist() == [0, 0, 0]
    files = {f"{name}.pth": zipped(each) for name, each in GREEDY.items()}
    files |= {f"{name}.pkl": each for name, each in GREEDY.items()}
    files |= {
        f"{name}_old.pth": OLD_START + b"\x80\x02M\xe9\x03." + b"\x80\x02}." + each for name, each in GREEDY.items()
    }
    files["count.pth"] = with_tensor(2**40, (3,), (1,))
    files["size.pth"] = with_tensor(3, (2**40,), (1,))
    files["repeated.pth"] = with_tensor(3, (10**6, 10**6), (0, 0))
    files["offset.pth"] = with_tensor(3, (3,), (1,), -5)
    files["packed.pth"] = packed()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, each in files.items():
        (tmp_path / name).write_bytes(each)
        with pytest.raises(UserError, match=f"{name} cannot be read"):
            open_checkpoint(tmp_path / name)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024  # of kilobytes


def load_archive(folder, written):
    (folder / "a.pth").write_bytes(written)
    return open_checkpoint(folder / "a.pth")


class Call:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def test_nothing_but_what_is_known_is_called_or_changed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    changed = b"\x80\x02}X\x01\x00\x00\x00actorch\nTensor\nN}X\x06\x00\x00\x00tolistX\x01\x00\x00\x00bs\x86bs."
    attacks = [
        zipped(pickle.dumps({"a": Call(os.mkdir, "harmed")}, 2)),
        zipped(pickle.dumps({"a": Call(torch.load, "a.pth")}, 2)),
        zipped(pickle.dumps({"a": Call(torch.Tensor, 2)}, 2)),
        zipped(changed),
        OLD_START + b"\x80\x02M\xe9\x03." + pickle.dumps(Call(os.mkdir, "harmed"), 2),
        zipped(
            pickle.dumps({"a": Call(torch._tensor._rebuild_from_type_v2, os.mkdir, torch.Tensor, ("harmed",), {})}, 2)
        ),
    ]
    for attack in attacks:
        (tmp_path / "a.pth").write_bytes(attack)
        with pytest.raises(NotPlainError):
            load_plain(tmp_path / "a.pth")
    assert not (tmp_path / "harmed").exists()
    assert callable(torch.Tensor.tolist)


def test_other_kinds_of_files_are_named(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch finds its own format old
        torch.jit.script(nn.Linear(1, 1)).save(str(tmp_path / "script.pth"))
    os.mkfifo(tmp_path / "fifo.pth")
    for name, message in (
        ("script.pth", "TorchScript archive"),
        ("fifo.pth", "is not a file"),
        ("none.pth", "does not exist"),
    ):
        with pytest.raises(UserError, match=message):
            open_checkpoint(tmp_path / name)
