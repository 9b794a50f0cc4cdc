"""Archives that a user has already, under any name: told by their checksum, or by what they hold."""

from __future__ import annotations

import os
import tarfile
import zipfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cvplugins.errors import DataError, UserError

from .download import checksum_problem
from .known import Archive, DataSet
from .unpacking import members

__all__ = ["OwnArchive", "find_own_archives"]


@dataclass(frozen=True)
class OwnArchive:
    """A file that can stand for an archive of a data set.

    Attributes:
        path: The file.
        inside: What the paths of its members begin with in front of the data set's own folders.
        difference: How it differs from the published archive, None if it is the same.
    """

    path: Path
    inside: PurePosixPath
    difference: str | None = None


def find_own_archives(folder: str | os.PathLike[str], data_set: DataSet) -> dict[str, OwnArchive]:
    """Return which archives of a data set a folder has, by the name of the archive; none is unpacked.

    A repacked copy, such as Kaggle's of ADE20K, is taken if it has every file that counts; how it differs is said.

    Args:
        folder: Its files are looked at, not those of its folders.
        data_set: The data set.

    Raises:
        UserError: There is no such folder, or an archive looks like one of the data set, but lacks files.
    """
    if not os.path.isdir(folder):
        raise UserError(f"--archives {folder}: there is no such folder")
    found: dict[str, OwnArchive] = {}
    lacking = []
    for path in sorted(Path(folder).iterdir()):
        if not path.is_file() or path.name.endswith(".part"):
            continue
        same = [each for each in data_set.archives if _may_be(path, each) and checksum_problem(path, each) is None]
        if same:
            found[same[0].name] = OwnArchive(path, PurePosixPath(data_set.inside))
        elif zipfile.is_zipfile(path) or tarfile.is_tarfile(path):
            for name, own in _by_content(path, data_set).items():
                if isinstance(own, OwnArchive):
                    found.setdefault(name, own)
                else:
                    lacking.append(own)
    if lacking and len(found) < len(data_set.archives):
        raise UserError(f"--archives {folder}: {lacking[0]}; get a whole copy, or take it out of this folder")
    return found


def _may_be(path: Path, archive: Archive) -> bool:
    """Return whether it is worth while to compute a checksum."""
    return path.stat().st_size == archive.size if archive.size_is_exact else path.name == archive.name


def _by_content(path: Path, data_set: DataSet) -> dict[str, OwnArchive | str]:
    """Return what a file stands for, or in words what it lacks, by the name of the archive."""
    try:
        paths = [member.path for member in members(path)]
    except DataError:
        return {}  # of something else, or broken: then it is not the user's only one, or the download will say so
    counts = Counter(each.parent for each in paths)
    known = set(paths)
    answers: dict[str, OwnArchive | str] = {}
    for archive in data_set.archives:
        inside = _prefix(counts, archive)
        if inside is None or inside / archive.marker not in known:
            continue
        for folder, wanted in archive.files.items():
            if counts[inside / folder] < wanted:
                answers[archive.name] = (
                    f"{path.name} looks like {archive.name}, but has {counts[inside / folder]:,} of {wanted:,} files "
                    f"in {folder}"
                )
                break
        else:
            answers[archive.name] = OwnArchive(path, inside, _difference(path, inside, data_set, archive, counts))
    return answers


def _prefix(counts: Mapping[PurePosixPath, int], archive: Archive) -> PurePosixPath | None:
    """Return what lies in front of the archive's largest folder, where it has the most files."""
    largest = PurePosixPath(max(archive.files, key=lambda folder: archive.files[folder]))
    depth = len(largest.parts)
    at = [folder for folder in counts if folder.parts[-depth:] == largest.parts]
    return PurePosixPath(*max(at, key=lambda folder: counts[folder]).parts[:-depth]) if at else None


def _difference(
    path: Path, inside: PurePosixPath, data_set: DataSet, archive: Archive, counts: Mapping[PurePosixPath, int]
) -> str:
    said = [f"{path.stat().st_size:,} bytes, not the published {archive.name}"]
    if inside != PurePosixPath(data_set.inside):
        said.append(f"its folders lie in {inside}/")
    parts = {part for each in data_set.archives for part in each.parts}
    others = sum(
        count
        for folder, count in counts.items()
        if folder != inside
        and not (folder.parts[: len(inside.parts)] == inside.parts and folder.parts[len(inside.parts)] in parts)
    )
    if others:
        said.append(f"{others:,} files beside them are left out")
    more = [
        f"{folder} has {counts[inside / folder]:,} files, published are {wanted:,}"
        for folder, wanted in archive.files.items()
        if counts[inside / folder] > data_set.files[folder]
    ]
    return "; ".join([*said, *more])
