"""Checkpoints at an address, each in a place of its own."""

from __future__ import annotations

import hashlib
import http.client
import logging
import re
import urllib.request
from pathlib import Path
from urllib.parse import urlparse

import torch

from .errors import UserError, first_line
from .files import write_whole

__all__ = ["cached", "fetch"]

logger = logging.getLogger(__name__)

SILENCE = 60.0  # seconds that a server may say nothing
PIECE = 2**20


def fetch(address: str) -> Path:
    """Return the path of what is at an http(s) address; it is downloaded into torch.hub's cache first.

    Raises:
        UserError: The address cannot be reached, its server falls silent, or sends another length than it says.
    """
    found = cached(address)
    if found is not None:
        return found
    target = _own_place(address)
    logger.info("downloading %s to %s", address, target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with write_whole(target) as temporary:  # also by several processes at once
            _download(address, temporary)
    except TimeoutError as error:
        raise UserError(f"checkpoint {address} cannot be downloaded: no byte came for {SILENCE:g} seconds") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise UserError(f"checkpoint {address} cannot be downloaded ({first_line(error)})") from error
    return target


def _download(address: str, target: Path) -> None:
    # Not torch.hub's download, which waits for ever, and keeps what is too short.
    request = urllib.request.Request(address, headers={"User-Agent": "cvplugins"})
    with urllib.request.urlopen(request, timeout=SILENCE) as answer, target.open("wb") as file:
        expected = answer.headers.get("Content-Length")
        while piece := answer.read(PIECE):
            if not file.tell() and piece.lstrip()[:9].lower().startswith((b"<html", b"<!doctype")):
                raise http.client.HTTPException("the server gives a web page; take the address of the file itself")
            file.write(piece)
        if expected is not None and file.tell() != int(expected):
            raise http.client.HTTPException(f"it ends after {file.tell()} of {expected} bytes; try again")
        if not file.tell():
            raise http.client.HTTPException("it is empty")


def cached(address: str) -> Path | None:
    """Return the path of what was downloaded from an address before, None if nothing was.

    A file in the cache of torch.hub itself, where all addresses with the same end share a name, is taken if its name
    ends in a checksum, as those of the model zoos do, and its content has it.
    """
    own = _own_place(address)
    if own.is_file():
        return own
    shared = own.parent.parent / own.name
    checksum = re.search(r"-([0-9a-f]{8,64})\.\w+$", shared.name)
    if checksum and shared.is_file() and _sha256(shared).startswith(checksum[1]):
        return shared
    return None


def _own_place(address: str) -> Path:
    """Return where an address's file lies: one folder for each address, whole with host and query."""
    name = re.sub(r"[^\w.+-]", "_", Path(urlparse(address).path).name) or "checkpoint"
    key = hashlib.sha256(address.encode()).hexdigest()[:16]
    return Path(torch.hub.get_dir(), "checkpoints", key, name[-200:])


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(2**20):
            digest.update(piece)
    return digest.hexdigest()
