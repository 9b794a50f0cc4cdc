"""A file is whole or absent."""

import pytest

from cvplugins.errors import UserError
from cvplugins.files import hand_over, kept_copy, write_whole


def _write_half(path):
    path.write_text("half")
    raise ZeroDivisionError


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError), write_whole(target) as temporary:
        _write_half(temporary)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_the_old_file_stands_until_the_end(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with write_whole(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_results_are_handed_over(tmp_path):
    kept = kept_copy(tmp_path / "work", "runs/found.pkl")
    assert kept == tmp_path / "work" / "test_results" / "found.pkl"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"hours of work")
    hand_over(kept, tmp_path / "new" / "found.pkl")
    assert (tmp_path / "new" / "found.pkl").read_bytes() == kept.read_bytes() == b"hours of work"
    hand_over(kept, kept)
    assert kept.read_bytes() == b"hours of work"


def test_results_that_cannot_be_handed_over_are_still_kept(tmp_path):
    """A disk may be gone when the test has run, though it could be written before."""
    kept = tmp_path / "found.pkl"
    kept.write_bytes(b"hours of work")
    (tmp_path / "gone").touch()
    out = tmp_path / "gone" / "found.pkl"
    with pytest.raises(UserError, match=rf"--out {out} cannot be written: .*; the results lie in {kept}"):
        hand_over(kept, out)
    assert kept.read_bytes() == b"hours of work"
