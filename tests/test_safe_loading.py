"""Pickles of plain data are read, all others refused before anything of them runs; torch's files in tests/openmmlab."""

import io
import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest

from cvplugins.errors import UserError
from cvplugins.safe_loading import load_plain_pickle, open_checkpoint


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "weights.pkl"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_is_read(path, protocol):
    """Oracle: what went in."""
    weights = OrderedDict(conv1_w=np.arange(6, dtype=np.float32).reshape(2, 3), step=np.int64(7), name="R-50")
    path.write_bytes(pickle.dumps({"model": weights, "flags": [True, None, {1, 2}], "raw": b"\xe4"}, protocol))
    found = load_plain_pickle(path)
    assert found["model"]["conv1_w"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert (found["model"]["step"], found["model"]["name"]) == (7, "R-50")
    assert (found["flags"], found["raw"]) == ([True, None, {1, 2}], b"\xe4")


def test_array_of_python_2_is_read(path):
    """Written by hand as Python 2 and NumPy 1 wrote it: bytes in a string, the module's old name."""
    path.write_bytes(
        b"\x80\x02}U\x07conv1_bcnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
        b"(K\x01K\x02\x85cnumpy\ndtype\n(U\x02f4K\x00K\x01tR(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U\x08\x00\x00\x80?\x00\x00\xc8\xc2tbs."
    )
    assert load_plain_pickle(path)["conv1_b"].tolist() == [1.0, -100.0]


class Call:
    """Asks for a call when it is loaded."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


# All would be dicts, as checkpoints are, if they were let through.
ATTACKS = {
    "system": pickle.dumps({"model": Call(os.mkdir, "harmed")}),
    "eval": pickle.dumps({"model": Call(eval, "__import__('os').mkdir('harmed')")}),
    "getattr": pickle.dumps({"model": Call(getattr, np.ndarray, "tofile")}),
    "in an array": pickle.dumps({"model": np.array([Call(os.mkdir, "harmed")], dtype=object)}),
    "numpy's own loader": pickle.dumps({"model": Call(np.load, io.BytesIO)}),
    "name with a dot": b"\x80\x04}\x8c\x01a\x8c\x05numpy\x8c\x0endarray.tofile\x93s.",
    "persistent": b"\x80\x02}X\x01\x00\x00\x00aX\x06\x00\x00\x00harmedQs.",
    "codec": b"\x80\x02}X\x01\x00\x00\x00ac_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86Rs.",
    "attribute of a type": b"\x80\x02}X\x01\x00\x00\x00acnumpy\nndarray\n}X\x06\x00\x00\x00tolist\x88s\x86bs.",
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_code_in_a_pickle_does_not_run(path, attack):
    path.write_bytes(ATTACKS[attack])
    with pytest.raises(UserError, match=r"weights.pkl (holds more than weights|cannot be read)"):
        open_checkpoint(path)
    assert not (path.parent / "harmed").exists()


def test_what_is_refused_is_named_with_the_way_out(path):
    path.write_bytes(ATTACKS["system"])
    with pytest.raises(UserError, match=r"\(posix.mkdir\).*could run code .* --trust-checkpoint"):
        open_checkpoint(path)
    open_checkpoint(path, trusted=True)
    assert (path.parent / "harmed").is_dir()


@pytest.mark.parametrize("content", [b"", b"<html>", b"version https://git-lfs", pickle.dumps({"a": np.zeros(9)})[:60]])
def test_what_is_no_pickle_is_not_called_dangerous(path, content):
    path.write_bytes(content)
    for trusted in (False, True):
        with pytest.raises(UserError, match=r"weights.pkl cannot be read"):
            open_checkpoint(path, trusted)


@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
@pytest.mark.parametrize("content", [b"", b"junk", b"}a.", b"\x80", b"a text\n", b"PK\x03\x04", b"\x89PNG\r\n"])
def test_a_file_of_another_kind_is_refused_in_one_line(tmp_path, suffix, content):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"cannot be read \(.+\); is it a whole checkpoint file\?$"):
        open_checkpoint(path)
