"""A work dir belongs to one run: refused while the owner lives, taken over when it is dead."""

import json
import os
import platform

import pytest
from lock_owner import end, owner

from cvplugins import run_lock
from cvplugins.errors import UserError
from cvplugins.run_lock import NAME, check_unlocked, locked


def test_a_living_owner_is_named_and_a_dead_ones_lock_taken_over(tmp_path, caplog):
    child = owner(tmp_path)
    try:
        for enter in (lambda: locked(tmp_path).__enter__(), lambda: check_unlocked(tmp_path)):
            with pytest.raises(
                UserError, match=f"process {child} on host {platform.node()} since .*--work-dir"
            ) as caught:
                enter()
            assert str(tmp_path) in str(caught.value)
    finally:
        end(child)
    assert (tmp_path / NAME).is_file()  # nothing has released it
    check_unlocked(tmp_path)
    with locked(tmp_path):
        assert json.loads((tmp_path / NAME).read_text())["process"] == os.getpid()
    assert f"took over the lock of process {child}" in caplog.text
    assert os.listdir(tmp_path) == []


def test_it_is_released_after_an_error(tmp_path):
    with pytest.raises(KeyboardInterrupt), locked(tmp_path / "new"):
        raise KeyboardInterrupt
    assert os.listdir(tmp_path / "new") == []


@pytest.mark.parametrize("left", ["", "{", "[1]", '{"host": 3}'])
def test_what_a_kill_left_half_written_is_taken_over(tmp_path, monkeypatch, left):
    monkeypatch.setattr(run_lock, "PATIENCE", 0.05)
    (tmp_path / NAME).write_text(left)
    with locked(tmp_path):
        pass


def test_an_owner_on_another_host_is_alive_while_it_touches_its_lock(tmp_path, monkeypatch):
    """As on a file system that tells one host nothing of another's locks."""
    monkeypatch.setattr(run_lock, "PATIENCE", 0.5)
    (tmp_path / NAME).write_text(json.dumps({"host": "elsewhere", "process": 7, "since": "then"}))
    with locked(tmp_path):
        pass
    (tmp_path / NAME).write_text(json.dumps({"host": "elsewhere", "process": 7, "since": "then"}))
    monkeypatch.setattr(run_lock, "SIGN_OF_LIFE", 0.02)
    stop = run_lock.threading.Event()
    keeper = run_lock.threading.Thread(target=run_lock._show_life, args=(tmp_path / NAME, stop))
    keeper.start()
    try:
        with pytest.raises(UserError, match="process 7 on host elsewhere"), locked(tmp_path):
            pass
    finally:
        stop.set()
        keeper.join()


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"), locked(tmp_path / "file"):
        pass
