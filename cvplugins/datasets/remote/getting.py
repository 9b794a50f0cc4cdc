"""Get a data set: see what is there, download what is not, unpack it aside, and give it its name when it is whole."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path, PurePosixPath

from cvplugins.errors import DataError, UserError
from cvplugins.paths import check_folder, check_source

from .download import Download, Patience, StoppedError
from .known import Archive, DataSet
from .own_archives import OwnArchive, find_own_archives
from .progress import Progress, in_bytes
from .unpacking import unpack

try:
    import fcntl
except ImportError:  # Windows: there nobody else is kept out
    fcntl = None  # type: ignore[assignment]

__all__ = ["MIRRORS_VARIABLE", "get_data_set", "missing_parts"]

MIRRORS_VARIABLE = "CVPLUGINS_DATA_MIRRORS"
RECORD = ".cvplugins_files.tsv"  # of each part: what was unpacked, and how long it was


def get_data_set(
    data_set: DataSet,
    root: str | os.PathLike[str] = "data",
    *,
    mirrors: Sequence[str] = (),
    archives: str | os.PathLike[str] | None = None,
    jobs: int = 3,
    keep_archives: bool = False,
    patience: Patience | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Bring a data set below ``root`` and return its folder; what is there already is only looked at.

    Whenever the process is killed, the next call goes on, and nothing that is not whole has the name of data.

    Args:
        data_set: One of :data:`~cvplugins.datasets.remote.known.DATA_SETS`.
        root: The folder that holds data sets.
        mirrors: Addresses of folders that have the archives, tried before the known ones, and before those of the
            environment variable ``CVPLUGINS_DATA_MIRRORS`` (several are parted by blanks).
        archives: A folder with archives that you have; they stay as they are.
        jobs: How many files to download side by side.
        keep_archives: Keep what was downloaded in ``root/archives``.
        patience: How long to wait for a server.
        say: Called with lines that say what happens.

    Raises:
        UserError: A part is there, but not whole; there is too little space; nothing has an archive; or an archive is
            not what it should be.

    Example::

        get_data_set(DATA_SETS["voc0712"], "data", archives="~/Downloads")
    """
    target = Path(root) / data_set.folder
    missing = missing_parts(data_set, target)
    if not missing:
        say(f"{target} is there: {_contents(data_set)}")
        return target
    bases = [*mirrors, *os.environ.get(MIRRORS_VARIABLE, "").split()]
    for base in bases:
        if not base.startswith(("http://", "https://")):
            raise UserError(f"mirror {base}: expected the address of a folder, such as https://host/voc")
        check_source(f"{base.rstrip('/')}/archive", "mirror")
    check_folder(target.parent)
    own = find_own_archives(archives, data_set) if archives is not None else {}
    needed = [archive for archive in data_set.archives if archive.parts & missing]
    aside = target.parent / f".{data_set.folder}.cvplugins"
    with _alone(aside):
        _check_space(needed, own, aside, say)
        found = {name: (each.path, each.inside) for name, each in own.items()}
        found |= _download(needed, own, aside, bases, jobs, patience, PurePosixPath(data_set.inside), say)
        for name, each in own.items():
            if each.difference is not None:
                say(f"{each.path} stands for {name}: {each.difference}")
        _unpack(data_set, needed, found, aside, missing, say)
        target.mkdir(exist_ok=True)
        for part in sorted(missing):
            (aside / "tree" / part).replace(target / part)
        for path in (aside / "tree").iterdir():  # such as sceneCategories.txt of ADE20K
            if not (target / path.name).exists():
                path.replace(target / path.name)
        if keep_archives:
            kept = target.parent / "archives"
            kept.mkdir(exist_ok=True)
            for path in (aside / archive.name for archive in needed):  # those of an earlier call too
                if path.is_file():
                    path.replace(kept / path.name)
        shutil.rmtree(aside, ignore_errors=True)
    say(f"{target} is complete: {_contents(data_set)}")
    return target


def missing_parts(data_set: DataSet, target: Path) -> set[str]:
    """Return which folders of a data set are not there yet.

    Raises:
        UserError: One is there, but it is not whole.
    """
    parts = {part for archive in data_set.archives for part in archive.parts}
    for part in sorted(parts):
        problem = _part_problem(data_set, target, part) if (target / part).is_dir() else None
        if problem is not None:
            raise UserError(f"{problem}; move {target / part} away to get it anew, or give another folder")
        if os.path.lexists(target / part) and not (target / part).is_dir():
            raise UserError(f"{target / part} is there and is no folder; move it away, or give another folder")
    return {part for part in parts if not (target / part).is_dir()}


def _part_problem(data_set: DataSet, target: Path, part: str) -> str | None:
    record = target / part / RECORD
    if record.is_file():
        for line in record.read_text().splitlines():
            size, _, name = line.partition("\t")
            path = target / part / name
            if not path.is_file() or path.stat().st_size != int(size):
                state = f"has {path.stat().st_size:,} of {int(size):,} bytes" if path.is_file() else "is missing"
                return f"{path} {state}"
        return None
    for folder, wanted in data_set.files.items():
        if PurePosixPath(folder).parts[0] != part:
            continue
        count = _count(target / folder)
        if count < wanted:
            return f"{target / folder} has {count:,} of {wanted:,} files"
    return None


def _count(folder: Path) -> int:
    if not folder.is_dir():
        return 0
    with os.scandir(folder) as entries:
        return sum(entry.is_file() and not entry.name.startswith(".") for entry in entries)


def _contents(data_set: DataSet) -> str:
    return ", ".join(f"{count:,} files in {folder}" for folder, count in data_set.files.items())


def _check_space(
    needed: Sequence[Archive], own: Mapping[str, OwnArchive], aside: Path, say: Callable[[str], None]
) -> None:
    to_load = sum(
        max(archive.size - _size(aside / archive.name) - _size(aside / f"{archive.name}.part"), 0)
        for archive in needed
        if archive.name not in own
    )
    to_unpack = sum(
        archive.unpacked or archive.size for archive in needed if not (aside / f"{archive.name}.done").exists()
    )
    free = shutil.disk_usage(aside).free
    say(
        f"{len(needed)} archives: {in_bytes(to_load)} to download, {in_bytes(to_unpack)} unpacked; "
        f"{in_bytes(free)} are free"
    )
    if to_load + to_unpack > free:
        raise UserError(
            f"{aside.parent} has {in_bytes(free)} of free space, {in_bytes(to_load + to_unpack)} are needed: "
            f"{in_bytes(to_load)} for the download and {in_bytes(to_unpack)} for the files; give a folder on a larger "
            "disk"
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _download(
    needed: Sequence[Archive],
    own: Mapping[str, OwnArchive],
    aside: Path,
    bases: Sequence[str],
    jobs: int,
    patience: Patience | None,
    inside: PurePosixPath,
    say: Callable[[str], None],
) -> dict[str, tuple[Path, PurePosixPath]]:
    """Return where the archives lie that the user does not have; several arrive side by side."""
    wanted = [each for each in needed if each.name not in own and not (aside / f"{each.name}.done").exists()]
    if not wanted:
        return {}
    stop = threading.Event()
    with Progress("downloading", sum(each.size for each in wanted)) as progress, ThreadPoolExecutor(jobs) as pool:
        futures = {}
        for archive in wanted:
            addresses = [*(f"{base.rstrip('/')}/{archive.name}" for base in bases), *archive.addresses]
            download = Download(
                archive, aside, addresses, arrived=progress.follow(archive.name), stop=stop, patience=patience
            )
            futures[archive.name] = pool.submit(download.run)
        try:
            wait(futures.values(), return_when=FIRST_EXCEPTION)
        finally:
            stop.set()  # of an error or an interrupt; those that are done do not look at it
    errors = [future.exception() for future in futures.values()]
    for error in errors:
        if error is not None and not isinstance(error, StoppedError):
            raise error
    return {name: (future.result(), inside) for name, future in futures.items()}


def _unpack(
    data_set: DataSet,
    needed: Sequence[Archive],
    found: Mapping[str, tuple[Path, PurePosixPath]],
    aside: Path,
    missing: set[str],
    say: Callable[[str], None],
) -> None:
    tree = aside / "tree"
    left = [each for each in needed if not (aside / f"{each.name}.done").exists()]
    with Progress("unpacking", sum(each.unpacked or each.size for each in left)) as progress:
        for archive in left:
            path, inside = found[archive.name]
            unpack(
                path,
                tree,
                inside=inside,
                most_bytes=10 * archive.size + 10**9,
                keep=lambda place: place.parts[0] in missing or len(place.parts) == 1,
                wrote=progress.follow(archive.name),
            )
            progress.follow(archive.name)(archive.unpacked or archive.size)
            (aside / f"{archive.name}.done").touch()
    for folder, wanted in data_set.files.items():
        if folder.partition("/")[0] in missing and (count := _count(tree / folder)) < wanted:
            shutil.rmtree(tree, ignore_errors=True)
            for each in needed:
                (aside / f"{each.name}.done").unlink(missing_ok=True)
            raise DataError(f"the archives hold {count:,} of {wanted:,} files of {folder}")
    for part in missing:
        files = sorted(path for path in (tree / part).rglob("*") if path.is_file() and path.name != RECORD)
        lines = (f"{path.stat().st_size}\t{path.relative_to(tree / part).as_posix()}\n" for path in files)
        (tree / part / RECORD).write_text("".join(lines))


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep a second call out of a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if fcntl is not None:
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UserError(f"another call gets data into {folder.parent} already; wait for its end") from None
        yield
    finally:
        os.close(descriptor)
        with contextlib.suppress(OSError):  # not empty: the next call goes on there
            if not any(path.name != "lock" for path in folder.iterdir()):
                (folder / "lock").unlink()
                folder.rmdir()
