"""Checkpoints at an address, each in a place of its own."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from urllib.parse import urlparse

import torch

from .errors import UserError, first_line

__all__ = ["cached", "fetch"]


def fetch(address: str) -> Path:
    """Return the path of what is at an http(s) address; it is downloaded into torch.hub's cache first.

    Raises:
        UserError: The address cannot be reached.
    """
    found = cached(address)
    if found is not None:
        return found
    target = _own_place(address)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(address, str(target))  # whole or not at all, also by several processes at once
    except (OSError, ValueError) as error:
        raise UserError(f"checkpoint {address} cannot be downloaded ({first_line(error)})") from error
    return target


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
