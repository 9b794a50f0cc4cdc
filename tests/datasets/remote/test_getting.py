"""A data set from a server, from archives of one's own, and after interruptions. Oracle: the files themselves."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import pytest
from datasets.remote.conftest import MORE, TEST, TRAIN, tar_of, zip_of

from cvplugins.datasets.remote import getting
from cvplugins.datasets.remote.download import Patience
from cvplugins.datasets.remote.getting import MIRRORS_VARIABLE, get_data_set
from cvplugins.datasets.remote.known import DATA_SETS
from cvplugins.errors import UserError

HURRY = Patience(silence=1.0, attempts=2, pause=0.01)


def data_in(root):
    """Return the content of all files of the data set by their paths, without what is ours."""
    found = sorted(path for path in (root / "Kit").rglob("*") if path.is_file() and not path.name.startswith("."))
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in found}


def test_it_is_downloaded_verified_unpacked_and_then_only_looked_at(data_set, server, files, tmp_path):
    said = []
    assert get_data_set(data_set, tmp_path / "new", patience=HURRY, say=said.append) == tmp_path / "new" / "Kit"
    assert data_in(tmp_path / "new") == files
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["Kit"]
    assert said[0].startswith("3 archives: 469 kB to download")
    requests = len(server.requests)
    get_data_set(data_set, tmp_path / "new", say=said.append)
    assert (len(server.requests), said[-1]) == (
        requests,
        f"{tmp_path}/new/Kit is there: 8 files in A/images, 4 files in B/images",
    )


def test_what_is_not_whole_is_named_and_never_touched(data_set, server, files, tmp_path):
    get_data_set(data_set, tmp_path, patience=HURRY)
    image = tmp_path / "Kit" / "A" / "images" / "3.jpg"
    image.write_bytes(image.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"3.jpg has 39,999 of 40,000 bytes; move .*/Kit/A away"):
        get_data_set(data_set, tmp_path, patience=HURRY)
    image.unlink()
    with pytest.raises(UserError, match=r"3.jpg is missing"):
        get_data_set(data_set, tmp_path, patience=HURRY)
    for record in (tmp_path / "Kit").rglob(".cvplugins_files.tsv"):  # of data that came by other ways
        record.unlink()
    with pytest.raises(UserError, match=r"A/images has 7 of 8 files"):
        get_data_set(data_set, tmp_path, patience=HURRY)
    shutil.rmtree(tmp_path / "Kit" / "A")
    requests = len(server.requests)
    get_data_set(data_set, tmp_path, patience=HURRY)
    assert data_in(tmp_path) == files
    assert sorted(path for path, *_ in server.requests[requests:]) == ["/test.tar", "/train.tar"]


def test_mirrors_come_first(data_set, server, files, tmp_path, monkeypatch):
    for archive in data_set.archives:
        server.contents[f"/mirror/{archive.name}"] = server.contents.pop(f"/{archive.name}")
    with pytest.raises(UserError, match="cannot be downloaded"):
        get_data_set(data_set, tmp_path, patience=HURRY)
    monkeypatch.setenv(MIRRORS_VARIABLE, f"{server.base}/none {server.base}/mirror/")
    get_data_set(data_set, tmp_path, patience=HURRY)
    assert data_in(tmp_path) == files
    monkeypatch.delenv(MIRRORS_VARIABLE)
    with pytest.raises(UserError, match="mirror ftp://host: expected the address of a folder"):
        get_data_set(data_set, tmp_path / "other", mirrors=["ftp://host"])


def test_archives_of_ones_own(data_set, server, files, contents, tmp_path):
    """The published file under another name, and a repacked one that has both halves of a folder and more."""
    own = tmp_path / "own"
    own.mkdir()
    (own / "archive (1).zip").write_bytes(contents["more.zip"])
    repacked = {f"copy/{name}": content for name, content in {**TRAIN, **TEST}.items()} | {"copy/readme.txt": b"hello"}
    (own / "kit.zip").write_bytes(zip_of(repacked))
    said = []
    get_data_set(data_set, tmp_path, archives=own, patience=HURRY, say=said.append)
    assert (data_in(tmp_path), server.requests) == (files, [])
    assert sorted(path.name for path in own.iterdir()) == ["archive (1).zip", "kit.zip"]
    text = "\n".join(said)
    assert (
        f"kit.zip stands for train.tar: {(own / 'kit.zip').stat().st_size:,} bytes, not the published train.tar" in text
    )
    assert "its folders lie in copy/Kit/; 1 files beside them are left out" in text


def test_an_own_archive_that_lacks_files_is_refused(data_set, server, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    (own / "part.tar").write_bytes(tar_of({name: TRAIN[name] for name in list(TRAIN)[2:]}))
    with pytest.raises(UserError, match=r"part.tar looks like train.tar, but has 3 of 5 files in A/images"):
        get_data_set(data_set, tmp_path, archives=own)
    with pytest.raises(UserError, match="there is no such folder"):
        get_data_set(data_set, tmp_path, archives=tmp_path / "none")
    assert server.requests == []


def test_too_little_space_is_said_before_anything_is_asked_for(data_set, server, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(getting.shutil, "disk_usage", lambda path: usage(10**9, 0, 500_000))
    with pytest.raises(UserError, match=r"500 kB of free space, 937 kB are needed: 469 kB for the download"):
        get_data_set(data_set, tmp_path)
    assert (server.requests, list(tmp_path.iterdir())) == ([], [])


def test_archives_can_be_kept(data_set, server, contents, tmp_path):
    get_data_set(data_set, tmp_path, keep_archives=True, patience=HURRY)
    assert {path.name: path.read_bytes() for path in (tmp_path / "archives").iterdir()} == contents


def test_archives_that_an_interrupted_call_has_unpacked_are_kept_too(data_set, contents, tmp_path, monkeypatch):
    unpack = getting.unpack

    def fail_at_the_last(path, *arguments, **options):
        if path.name == "more.zip":
            raise KeyboardInterrupt
        return unpack(path, *arguments, **options)

    monkeypatch.setattr(getting, "unpack", fail_at_the_last)
    with pytest.raises(KeyboardInterrupt):
        get_data_set(data_set, tmp_path, keep_archives=True, patience=HURRY)
    monkeypatch.undo()
    get_data_set(data_set, tmp_path, keep_archives=True, patience=HURRY)
    assert {path.name: path.read_bytes() for path in (tmp_path / "archives").iterdir()} == contents


def test_one_archive_that_fails_keeps_the_others(data_set, server, files, tmp_path):
    content = server.contents.pop("/more.zip")
    with pytest.raises(UserError, match=r"more.zip cannot be downloaded .*HTTP 404"):
        get_data_set(data_set, tmp_path, patience=HURRY, jobs=1)
    assert not (tmp_path / "Kit").exists()
    server.contents["/more.zip"] = content
    requests = len(server.requests)
    get_data_set(data_set, tmp_path, patience=HURRY)
    assert data_in(tmp_path) == files
    assert [path for path, *_ in server.requests[requests:]] == ["/more.zip"]


def test_a_second_call_at_the_same_time_is_kept_out(data_set, server, tmp_path):
    script = (
        "import fcntl, sys\n"
        "file = open(sys.argv[1], 'w')\n"
        "fcntl.lockf(file, fcntl.LOCK_EX)\n"
        "print(flush=True)\n"
        "sys.stdin.read()"
    )
    folder = tmp_path / ".Kit.cvplugins"
    folder.mkdir()
    holder = subprocess.Popen(
        [sys.executable, "-c", script, folder / "lock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        holder.stdout.readline()
        with pytest.raises(UserError, match="another call gets data into"):
            get_data_set(data_set, tmp_path)
    finally:
        holder.communicate(b"")


SLOW = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import pickle, time
from cvplugins.datasets.remote import getting, unpacking
copy = unpacking._copy
def slow(*arguments):
    time.sleep(0.02)
    copy(*arguments)
unpacking._copy = slow
print("ready", flush=True)
getting.get_data_set(pickle.loads(bytes.fromhex(sys.argv[2])), Path(sys.argv[3]), jobs=1)
"""


def test_killed_at_any_moment_it_goes_on(data_set, server, files, tmp_path):
    """Eight kills at random moments; until the end nothing has the name of data that is not whole."""
    import pickle

    def trickle(handler, content):
        time.sleep(0.1)

    for archive in data_set.archives:
        server.faults[f"/{archive.name}"] = [trickle] * 50
    draw = random.Random(3)
    root = Path(__file__).parents[3]
    arguments = [sys.executable, "-c", SLOW, str(root), pickle.dumps(data_set).hex(), str(tmp_path)]
    kills = 0
    for _ in range(8):
        child = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        child.stdout.readline()
        time.sleep(draw.uniform(0.02, 0.5))
        if child.poll() is None:
            os.kill(child.pid, signal.SIGKILL)
            kills += 1
        child.communicate()
        for part, whole in (("A", {**TRAIN, **TEST}), ("B", MORE)):
            if (tmp_path / "Kit" / part).exists():
                wanted = {name: content for name, content in whole.items() if name.startswith(f"Kit/{part}/")}
                assert {n: c for n, c in data_in(tmp_path).items() if n.startswith(f"Kit/{part}/")} == wanted
    assert kills > 2
    get_data_set(data_set, tmp_path, patience=HURRY)
    assert data_in(tmp_path) == files
    assert [path.name for path in tmp_path.iterdir()] == ["Kit"]


def test_the_table_of_known_data_sets():
    """Every archive has a secure or at least a published checksum, and addresses that end in its name."""
    lengths = {"md5": 32, "sha1": 40, "sha256": 64}
    for data_set in DATA_SETS.values():
        for archive in data_set.archives:
            assert archive.addresses
            assert all(each.startswith("http") and each.endswith(f"/{archive.name}") for each in archive.addresses)
            assert all(len(value) == lengths[kind] for kind, value in archive.checksums.items())
            assert {"sha256", "sha1"} & set(archive.checksums)
            assert archive.marker.partition("/")[0] in archive.parts


def test_the_command(data_set, server, files, tmp_path, monkeypatch, capsys):
    from cvplugins.cli import main

    monkeypatch.setitem(DATA_SETS, "voc0712", data_set)
    assert main(["data", "get", "voc0712", str(tmp_path)]) == 0
    assert data_in(tmp_path) == files
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"{tmp_path}/Kit is complete: 8 files in A/images")
    for arguments, said in (
        (["voc0712", str(tmp_path / "x"), "--mirror", "x"], "error: mirror x: expected the address of a folder"),
        (["voc0712", str(tmp_path / "x"), "--jobs", "0"], "error: --jobs 0: expected 1 or more"),
        (["voc0712", str(tmp_path / "x"), "--archives", "none"], "error: --archives none: there is no such folder"),
        (["voc0712", "/dev/null/x"], "error: folder /dev/null/x: /dev/null is a file, not a folder"),
    ):
        assert main(["data", "get", *arguments]) == 2
        error = capsys.readouterr().err
        assert error.startswith(said)
        assert error.count("\n") == 1
    assert not (tmp_path / "x").exists()
