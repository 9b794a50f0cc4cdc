"""One file from several addresses: goes on where it stopped, and gets its name only when its checksum is right."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cvplugins import __version__
from cvplugins.errors import UserError, first_line

from .known import Archive

__all__ = ["Download", "Patience", "StoppedError", "checksum_problem"]

PIECE = 2**16
MOST_ATTEMPTS = 1000  # at one address, each of which brought something
TRY_AGAIN = {408, 425, 429, 500, 502, 503, 504}  # HTTP's codes for what may pass


class StoppedError(Exception):
    """Another file failed, or the user interrupts; what has arrived stays."""


class _RefusedError(Exception):
    """This address does not have the file; the next one may."""


class _BrokenOffError(Exception):
    """The connection broke off; going on may help.

    Attributes:
        wait: Seconds that the server asks for.
    """

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


@dataclass(frozen=True)
class Patience:
    """How long to wait for a server.

    Attributes:
        silence: Seconds without a byte after which a connection counts as broken.
        attempts: How often in a row an address may fail without a new byte.
        pause: Seconds before the second attempt; doubled before each further one.
        longest_pause: Seconds, whatever the server asks for.
    """

    silence: float = 30.0
    attempts: int = 4
    pause: float = 1.0
    longest_pause: float = 60.0


class Download:
    """The download of an archive.

    Args:
        archive: What to download.
        folder: Where to. Until the file is whole it is called ``NAME.part``.
        addresses: Where from, in the order in which they are tried.
        arrived: Called with the number of bytes that are there, whenever some have arrived.
        stop: Set by whoever wants the download to end.
        patience: How long to wait for a server.
    """

    def __init__(
        self,
        archive: Archive,
        folder: Path,
        addresses: Sequence[str],
        *,
        arrived: Callable[[int], None],
        stop: threading.Event,
        patience: Patience | None = None,
    ) -> None:
        self.archive = archive
        self.target = folder / archive.name
        self.part = folder / f"{archive.name}.part"
        self.origin = folder / f"{archive.name}.part.json"
        self.addresses = addresses
        self.arrived = arrived
        self.stop = stop
        self.patience = patience or Patience()

    def run(self) -> Path:
        """Return the path of the whole file; it is downloaded unless it is there.

        Raises:
            UserError: No address has it, or it cannot be written.
            StoppedError: ``stop`` was set.
        """
        if self.target.is_file() and checksum_problem(self.target, self.archive) is None:
            self.arrived(self.target.stat().st_size)
            return self.target
        failures = []
        try:
            for address in self.addresses:
                try:
                    self._from(address)
                except _RefusedError as error:
                    failures.append(f"{address}: {error}")
                else:
                    self.part.replace(self.target)
                    self.origin.unlink(missing_ok=True)
                    return self.target
        except OSError as error:  # of the disk: those of the network are answered below
            raise UserError(
                f"{self.part} cannot be written: {(error.strerror or first_line(error)).lower()}"
            ) from error
        raise UserError(
            f"{self.archive.name} cannot be downloaded ({'; '.join(failures)}). Give an address that has it with "
            "--mirror URL, or the file itself with --archives DIR; what has arrived is kept for the next call"
        )

    def _from(self, address: str) -> None:
        """Let the whole file arrive from one address."""
        fruitless, is_mixed = 0, self._have() > 0
        for _ in range(MOST_ATTEMPTS):
            before = self._have()
            try:
                self._request(address)
            except _BrokenOffError as error:
                fruitless = 0 if self._have() > before else fruitless + 1
                if fruitless >= self.patience.attempts:
                    raise _RefusedError(str(error)) from error
                pause = max(error.wait, self.patience.pause * 2 ** (fruitless - 1) if fruitless else 0.0)
                if self.stop.wait(min(pause, self.patience.longest_pause)):
                    raise StoppedError from None
                continue
            problem = checksum_problem(self.part, self.archive)
            if problem is None:
                return
            self._discard()
            if not is_mixed:
                raise _RefusedError(f"another file, {problem}")
            is_mixed = False  # its beginning came from elsewhere; once more, from the start
        raise _RefusedError(f"broke off {MOST_ATTEMPTS} times")

    def _request(self, address: str) -> None:
        """Append to the part what an address has from there on; all of it if it cannot begin there."""
        have = self._have()
        headers = {"User-Agent": f"cvplugins/{__version__}", "Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
            if (version := self._version(address)) is not None:
                headers["If-Range"] = version
        try:
            with urllib.request.urlopen(
                urllib.request.Request(address, headers=headers), timeout=self.patience.silence
            ) as response:
                self._receive(response, address, have)
        except urllib.error.HTTPError as error:
            if error.code == 416 and have:  # nothing lies behind what is there: whole, or another file
                if checksum_problem(self.part, self.archive) is not None:
                    self._discard()
                    raise _BrokenOffError("HTTP 416") from error
                return
            if error.code in TRY_AGAIN:
                raise _BrokenOffError(f"HTTP {error.code}", _seconds(error.headers.get("Retry-After"))) from error
            raise _RefusedError(f"HTTP {error.code}") from error
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            said = getattr(error, "reason", None) or error
            raise _BrokenOffError(first_line(said) if isinstance(said, Exception) else str(said)) from error

    def _receive(self, response: Any, address: str, have: int) -> None:
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise _RefusedError(f"answers in the encoding {response.headers['Content-Encoding']}")
        if have and response.status == 206 and not _begins_at(response.headers.get("Content-Range"), have):
            self._discard()
            raise _BrokenOffError("answers with another range than was asked for")
        if response.status != 206:
            have = 0
        length = response.headers.get("Content-Length")
        whole = have + int(length) if length is not None and length.isdigit() else None
        exact = self.archive.size if self.archive.size_is_exact else None
        if exact is not None and whole is not None and whole != exact:
            raise _RefusedError(f"has {whole:,} bytes, expected {exact:,}")
        most = exact if exact is not None else whole if whole is not None else 2 * self.archive.size
        version = response.headers.get("ETag") or response.headers.get("Last-Modified")
        self.origin.write_text(json.dumps({"address": address, "version": version}))
        with self.part.open("ab" if have else "wb") as file:
            while piece := response.read(PIECE):
                if self.stop.is_set():
                    raise StoppedError
                if file.tell() + len(piece) > most:
                    raise _RefusedError(f"sends more than {most:,} bytes")
                file.write(piece)
                self.arrived(file.tell())
        if (expected := exact if exact is not None else whole) is not None and self._have() < expected:
            raise _BrokenOffError(f"ended after {self._have():,} of {expected:,} bytes")

    def _have(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def _version(self, address: str) -> str | None:
        """Return what the server called the version whose beginning is here; a weak name does not count."""
        try:
            origin = json.loads(self.origin.read_text())
        except (OSError, ValueError):
            return None
        version = origin.get("version") if isinstance(origin, dict) and origin.get("address") == address else None
        return version if isinstance(version, str) and not version.startswith("W/") else None

    def _discard(self) -> None:
        self.part.unlink(missing_ok=True)
        self.origin.unlink(missing_ok=True)


def checksum_problem(path: str | os.PathLike[str], archive: Archive) -> str | None:
    """Return why a file is not an archive as it was published, None if it is."""
    size = os.path.getsize(path)
    if archive.size_is_exact and size != archive.size:
        return f"of {size:,} bytes instead of {archive.size:,}"
    digests = {name: hashlib.new(name, usedforsecurity=False) for name in archive.checksums}
    with open(path, "rb") as file:
        while piece := file.read(2**20):
            for digest in digests.values():
                digest.update(piece)
    for name, digest in digests.items():
        if digest.hexdigest() != archive.checksums[name]:
            return f"whose {name} is {digest.hexdigest()} instead of {archive.checksums[name]}"
    return None


def _begins_at(content_range: str | None, have: int) -> bool:
    return content_range is not None and content_range.replace("bytes", "").strip().startswith(f"{have}-")


def _seconds(retry_after: str | None) -> float:
    return float(retry_after) if retry_after is not None and retry_after.isdigit() else 0.0
