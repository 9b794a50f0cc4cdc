"""Checkpoints: whole or absent, found again, opened without running code."""

import os

import pytest
import torch
from torch import nn

pytestmark = pytest.mark.openmmlab


@pytest.fixture
def train(tmp_path, request):
    from small_runner import runner

    def _train(**options):
        name = f"{request.node.name}_{len(list(tmp_path.iterdir()))}"
        hook = dict(type="cvplugins.AtomicCheckpointHook", interval=1, **options)
        runner(tmp_path, name, default_hooks=dict(checkpoint=hook), epochs=3).train()
        return tmp_path

    return _train


def test_checkpoints_are_written_and_the_oldest_deleted(train):
    folder = train(max_keep_ckpts=2)
    assert {path.name for path in folder.glob("*.pth")} == {"epoch_2.pth", "epoch_3.pth"}
    assert not list(folder.glob(".*"))


def test_a_checkpoint_of_ours_is_opened_safely(train):
    from cvplugins.openmmlab.run.checkpoint import open_checkpoint

    checkpoint = open_checkpoint(train() / "epoch_3.pth")
    assert set(checkpoint["state_dict"]) == {"first.weight", "first.bias", "last.weight", "last.bias"}
    assert checkpoint["meta"]["epoch"] == 3


def test_dying_while_writing_leaves_the_old_checkpoint(train, tmp_path, monkeypatch):
    """Every checkpoint that exists can be read; what a SIGKILL does is tested with the tools."""
    from cvplugins.openmmlab.run.checkpoint import find_checkpoint, open_checkpoint

    class Killed(BaseException):
        pass

    whole = os.fsync
    calls = 0

    def dies_at_the_third(descriptor):
        nonlocal calls
        calls += 1
        if calls == 3:
            os.truncate(descriptor, 100)  # half of the file is on the disk
            raise Killed
        whole(descriptor)

    monkeypatch.setattr(os, "fsync", dies_at_the_third)
    with pytest.raises(Killed):
        train(max_keep_ckpts=1)
    kept = sorted(path.name for path in tmp_path.glob("*.pth"))
    assert kept
    for name in kept:
        open_checkpoint(tmp_path / name)
    assert find_checkpoint(tmp_path).name == kept[-1]


@pytest.mark.parametrize("pointer", [None, "", "/elsewhere/epoch_2.pth", "epoch_99.pth"])
def test_newest_checkpoint_is_found_without_a_good_pointer(tmp_path, pointer):
    from cvplugins.openmmlab.run.checkpoint import find_checkpoint

    for count in (2, 10, 9):
        (tmp_path / f"epoch_{count}.pth").write_bytes(b"x")
    (tmp_path / "best_bbox_AP50_epoch_11.pth").write_bytes(b"x")
    if pointer is not None:
        (tmp_path / "last_checkpoint").write_text(pointer)
        os.utime(tmp_path / "epoch_2.pth", (0, 0))
    assert find_checkpoint(tmp_path).name == "epoch_10.pth"


def test_pointer_counts_when_its_file_is_the_newest(tmp_path):
    from cvplugins.openmmlab.run.checkpoint import find_checkpoint

    for age, name in enumerate(["iter_500.pth", "epoch_9.pth"]):
        (tmp_path / name).write_bytes(b"x")
        os.utime(tmp_path / name, (100 - age, 100 - age))
    (tmp_path / "last_checkpoint").write_text(str(tmp_path / "iter_500.pth"))
    assert find_checkpoint(tmp_path).name == "iter_500.pth"


def test_no_checkpoint(tmp_path):
    from cvplugins.openmmlab.run.checkpoint import find_checkpoint

    assert find_checkpoint(tmp_path) is None
    assert find_checkpoint(tmp_path / "absent") is None


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harmed",)


def old_form(value, path):
    torch.save(value, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("write", [torch.save, old_form])
def test_code_in_a_checkpoint_does_not_run(tmp_path, monkeypatch, write):
    from cvplugins.errors import UserError
    from cvplugins.openmmlab.run.checkpoint import open_checkpoint

    monkeypatch.chdir(tmp_path)
    write({"state_dict": {}, "meta": Harmful()}, tmp_path / "bad.pth")
    with pytest.raises(UserError, match=r"bad.pth holds more than weights .* --trust-checkpoint"):
        open_checkpoint(tmp_path / "bad.pth")
    assert not (tmp_path / "harmed").exists()


class Getattr:
    """A file that asks ``getattr`` for more than mmengine's checkpoints do."""

    def __init__(self, owner, name):
        self.call = owner, name

    def __reduce__(self):
        return getattr, self.call


@pytest.mark.parametrize("name", ["__init__", "__globals__", "absent"])
def test_getattr_in_a_checkpoint_names_statistics_only(tmp_path, name):
    from mmengine.logging.history_buffer import HistoryBuffer

    from cvplugins.errors import UserError
    from cvplugins.openmmlab.run.checkpoint import open_checkpoint

    torch.save({"meta": Getattr(HistoryBuffer, name)}, tmp_path / "bad.pth")
    with pytest.raises(UserError, match=r"holds more than weights and plain data \(getattr\("):
        open_checkpoint(tmp_path / "bad.pth")


def test_a_trusted_checkpoint_may_hold_anything(tmp_path, monkeypatch):
    from cvplugins.openmmlab.run.checkpoint import open_checkpoint

    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {}, "meta": Harmful()}, tmp_path / "bad.pth")
    open_checkpoint(tmp_path / "bad.pth", trusted=True)
    assert (tmp_path / "harmed").is_dir()


def test_numbers_written_under_numpy_1_or_2_are_plain_data(tmp_path):
    """Files hold the name of a NumPy function, which moved; here both names, by editing the file."""
    import numpy as np

    from cvplugins.openmmlab.run.checkpoint import open_checkpoint

    values = {"array": np.arange(3, dtype=np.uint8), "number": np.float16(2.5), "flag": np.bool_(True)}
    path = tmp_path / "numbers.pth"
    path.write_bytes(b"")
    torch.save(values, path, _use_new_zipfile_serialization=False)
    written = path.read_bytes()
    names = (b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert any(name in written for name in names)
    for name in names:
        for other in names:
            path.write_bytes(written.replace(other, name))
            found = open_checkpoint(path)
            assert found["array"].tolist() == [0, 1, 2]
            assert found["number"] == 2.5


@pytest.mark.parametrize("content", [b"version 1 of a pointer to a large file", b"<html>", b"x" * 5000])
def test_what_is_no_checkpoint_is_not_called_dangerous(tmp_path, content):
    from cvplugins.errors import UserError
    from cvplugins.openmmlab.run.checkpoint import open_checkpoint

    (tmp_path / "page.pth").write_bytes(content)
    for trusted in (False, True):
        with pytest.raises(UserError, match=r"page.pth cannot be read .* is it a whole checkpoint file"):
            open_checkpoint(tmp_path / "page.pth", trusted)


def test_a_checkpoint_is_a_dict(tmp_path):
    from cvplugins.errors import UserError
    from cvplugins.openmmlab.run.checkpoint import open_checkpoint

    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(UserError, match="it holds a list, not a dict"):
        open_checkpoint(tmp_path / "list.pth")


@pytest.mark.parametrize("cut", [0, 10, 500])
def test_a_broken_checkpoint_is_named(tmp_path, cut):
    from cvplugins.errors import UserError
    from cvplugins.openmmlab.run.checkpoint import open_checkpoint

    path = tmp_path / "half.pth"
    torch.save({"state_dict": nn.Linear(50, 50).state_dict()}, path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(UserError, match=r"checkpoint .*half.pth"):
        open_checkpoint(path)
    with pytest.raises(UserError, match=r"checkpoint .*none.pth does not exist"):
        open_checkpoint(tmp_path / "none.pth")


def test_weights_of_another_architecture_are_refused():
    from cvplugins.errors import UserError
    from cvplugins.openmmlab.run.checkpoint import check_weights_fit

    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    check_weights_fit(model, {"state_dict": model.state_dict()}, "a.pth")
    check_weights_fit(model, {f"module.{name}": value for name, value in model.state_dict().items()}, "a.pth")
    other = nn.Sequential(nn.Linear(2, 4))
    with pytest.raises(
        UserError, match=r"a.pth is of another architecture .* 0.weight is \(4, 2\) and should be \(3, 2\)"
    ):
        check_weights_fit(model, {"state_dict": other.state_dict()}, "a.pth")
    with pytest.raises(UserError, match=r"1.weight is missing; 1.bias is missing"):
        check_weights_fit(model, {"state_dict": model[:1].state_dict()}, "a.pth")


def test_what_a_killed_run_left_is_swept_away(train, tmp_path):
    (tmp_path / ".epoch_9.pth.123.tmp").write_bytes(b"half")
    folder = train()
    assert not list(folder.glob(".*"))
