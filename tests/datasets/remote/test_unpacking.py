"""Archives that want out of their folder, or that are not what they say. Oracle: nothing lies outside."""

import io
import stat
import tarfile
import zipfile
from pathlib import PurePosixPath

import pytest

from cvplugins.datasets.remote.unpacking import unpack
from cvplugins.errors import DataError

NAMES = ("/etc/x", "../x", "Kit/../../x", "Kit\\..\\x", "C:/x", "C:\\x")


def tar(path, *members):
    with tarfile.open(path, "w") as archive:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type, info.size = kind, len(content)
            info.linkname = "/etc/passwd"
            archive.addfile(info, io.BytesIO(content))
    return path


def unpacked(path, tmp_path, most_bytes=10**6):
    target = tmp_path / "inside" / "tree"
    try:
        return unpack(
            path,
            target,
            inside=PurePosixPath("Kit"),
            most_bytes=most_bytes,
            keep=lambda place: True,
            wrote=lambda count: None,
        )
    finally:
        outside = [each for each in tmp_path.rglob("*") if each.is_file() and target not in each.parents]
        assert outside == [path]
        assert not any(each.is_symlink() for each in tmp_path.rglob("*"))


@pytest.mark.parametrize("name", NAMES)
def test_members_that_would_lie_outside(tmp_path, name):
    with pytest.raises(DataError, match="would lie outside"):
        unpacked(tar(tmp_path / "a.tar", (name, tarfile.REGTYPE, b"x")), tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_members_of_a_zip_that_would_lie_outside(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(name, b"x")
    with pytest.raises(DataError, match="would lie outside"):
        unpacked(tmp_path / "a.zip", tmp_path)


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.CONTTYPE]
)
def test_links_and_devices(tmp_path, kind):
    path = tar(tmp_path / "a.tar", ("Kit/a", tarfile.REGTYPE, b"x"), ("Kit/b", kind, b""))
    if kind == tarfile.CONTTYPE:  # a plain file of old systems
        assert unpacked(path, tmp_path) == 0
    else:
        with pytest.raises(DataError, match="member Kit/b is a link or device"):
            unpacked(path, tmp_path)


def test_a_link_in_a_zip(tmp_path):
    info = zipfile.ZipInfo("Kit/b")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(DataError, match="member Kit/b is a link or device"):
        unpacked(tmp_path / "a.zip", tmp_path)


def test_a_huge_ratio(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("Kit/a", bytes(5 * 10**6))
    with pytest.raises(DataError, match="its members have more than 1,000,000 bytes"):
        unpacked(tmp_path / "a.zip", tmp_path)


def test_a_member_that_is_longer_than_it_says(tmp_path):
    """The size in both headers is patched; zipfile itself would read on to the end of the stream, or raise."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("Kit/a", bytes(5000))
    content = (tmp_path / "a.zip").read_bytes().replace((5000).to_bytes(4, "little"), (50).to_bytes(4, "little"))
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(DataError, match="member Kit/a is"):
        unpacked(tmp_path / "a.zip", tmp_path)


def test_broken_encrypted_and_doubled_members(tmp_path):
    path = tar(tmp_path / "a.tar", ("Kit/a", tarfile.REGTYPE, b"x" * 5000))
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match="broken"):
        unpacked(path, tmp_path)
    tar(path, ("Kit/a", tarfile.REGTYPE, b"1"), ("Kit/a", tarfile.REGTYPE, b"2"))
    with pytest.raises(DataError, match="member Kit/a comes twice"):
        unpacked(path, tmp_path)
    path.unlink()
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("Kit/a", b"x" * 100)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"x" * 100, b"y" * 100))
    with pytest.raises(DataError, match="member Kit/a is broken: Bad CRC-32"):
        unpacked(path, tmp_path)
    path.write_bytes(whole.replace(b"PK\x01\x02\x14\x03\x14\x00\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01\x00"))
    with pytest.raises(DataError, match="encrypted"):
        unpacked(path, tmp_path)
    path.write_bytes(b"no archive")
    with pytest.raises(DataError, match="broken"):
        unpacked(path, tmp_path)


def test_others_are_left_out_and_counted(tmp_path):
    path = tar(tmp_path / "a.tar", ("Kit/a", tarfile.REGTYPE, b"x"), ("Else/b", tarfile.REGTYPE, b"y"))
    assert unpacked(path, tmp_path) == 1
    assert (tmp_path / "inside" / "tree" / "a").read_bytes() == b"x"
