"""What is kept between runs. Oracle: the file itself, read again."""

import json
import multiprocessing
import os
import time

import pytest
from odd_images import encoded, picture, write

from cvplugins.datasets import file_facts, image_readers
from cvplugins.datasets.file_facts import read_facts
from cvplugins.datasets.image_files import read_header
from cvplugins.errors import DataError


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setattr(file_facts, "RACE", 100_000_000)
    monkeypatch.setenv("CVPLUGINS_CACHE_DIR", str(folder))
    return folder


@pytest.fixture
def paths(tmp_path):
    found = [write(tmp_path / "images" / f"{n}.jpg", encoded(picture(40 + n, 30))) for n in range(3)]
    _wait_until_old(found[-1])
    return found


def _wait_until_old(path):
    """The time of the last change cannot be set: wait until it is out of the range of the clock's steps."""
    while time.time_ns() - path.stat().st_ctime_ns < 120_000_000:
        time.sleep(0.02)


def lengths(paths, key="length", read=None):
    """Return the sizes of files, and which of them were opened."""
    opened = []

    def _read(path):
        opened.append(path.name)
        if path.stat().st_size == 0:
            raise DataError(f"{path}: empty")
        return path.stat().st_size

    found = read_facts(paths, read or _read, key=key, pack=lambda size: [size], unpack=lambda values: int(*values))
    return found, sorted(opened)


def test_a_file_is_read_once_until_it_changes(cache, paths, monkeypatch):
    names = [path.name for path in paths]
    first, opened = lengths(paths)
    assert opened == names
    assert first == [path.stat().st_size for path in paths]
    assert lengths(paths) == (first, [])
    os.utime(paths[1])  # changed a moment ago: read, and not kept
    monkeypatch.setattr(file_facts, "RACE", 60_000_000_000)
    for _ in range(2):
        assert lengths(paths) == (first, [names[1]])
    assert lengths(paths, key="another version") == (first, names)


def test_a_change_that_keeps_size_and_time_is_seen(cache, paths):
    first, _ = lengths(paths)
    status = paths[0].stat()
    paths[0].write_bytes(paths[0].read_bytes()[::-1])
    os.utime(paths[0], ns=(status.st_atime_ns, status.st_mtime_ns))
    assert paths[0].stat().st_mtime_ns == status.st_mtime_ns
    assert lengths(paths) == (first, [paths[0].name])


def test_a_fault_is_never_kept(cache, paths):
    paths[1].write_bytes(b"")
    _wait_until_old(paths[1])
    for _ in range(2):
        found, opened = lengths(paths)
        assert isinstance(found[1], DataError)
        assert paths[1].name in opened


def test_damage_after_a_first_check_is_found(cache, paths):
    assert not any(isinstance(each, DataError) for each in image_readers.read_headers(paths))
    kept = next((cache / "files").iterdir()).read_text()
    assert paths[0].name in kept
    paths[0].write_bytes(paths[0].read_bytes()[:-2])
    assert "truncated" in str(image_readers.read_headers(paths)[0])


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\x80\x04.", b'{"head":1}', b"[" * 100_000, b'{"files": {"0.jpg": [1]}}'],
)
def test_a_broken_cache_is_passed_over_and_replaced(cache, paths, content):
    fresh = image_readers.read_headers(paths)
    (file,) = (cache / "files").iterdir()
    good = file.read_bytes()
    file.write_bytes(content)
    assert image_readers.read_headers(paths) == fresh
    assert json.loads(file.read_bytes()) == json.loads(good)


@pytest.mark.parametrize("values", [["JPEG", 1], ["JPEG", "1", 1, 1, 1, "", False], ["JPEG", 0, 1, 1, 1, "", False]])
def test_values_that_are_none_of_ours_are_read_again(cache, paths, values):
    fresh = image_readers.read_headers(paths)
    (file,) = (cache / "files").iterdir()
    content = json.loads(file.read_bytes())
    for name, entry in content["files"].items():
        content["files"][name] = entry[:4] + values
    file.write_text(json.dumps(content))
    assert image_readers.read_headers(paths) == fresh == [read_header(path) for path in paths]


def test_a_cache_that_cannot_be_written_is_done_without(paths, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CVPLUGINS_CACHE_DIR", str(tmp_path / "file"))
    assert [each.width for each in image_readers.read_headers(paths)] == [40, 41, 42]


def _read_many(paths):
    for _ in range(20):
        image_readers.read_headers(paths)


def test_processes_may_write_at_once(cache, paths):
    fresh = image_readers.read_headers(paths)
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_read_many, args=(paths[n:],)) for n in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert image_readers.read_headers(paths) == fresh
    assert [path.suffix for path in (cache / "files").iterdir()] == [".json"]
