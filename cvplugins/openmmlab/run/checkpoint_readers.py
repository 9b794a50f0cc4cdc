"""What mmengine reads checkpoints with while a tool of ours runs: nothing that a file holds is run."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.runner import checkpoint as mmengine_checkpoint

from cvplugins.downloads import cached, fetch
from cvplugins.errors import UserError
from cvplugins.openmmlab.upstream import checkpoint_readers

from .checkpoint import open_checkpoint, weights_of

__all__ = ["check_pretrained", "fetch_checkpoint", "is_at_hand", "safe_readers"]

logger = logging.getLogger(__name__)

# Each model zoo: its prefixes, and the function of mmengine's that knows its addresses.
ZOOS = {
    "torchvision": (("torchvision://", "modelzoo://"), mmengine_checkpoint.get_torchvision_models),
    "open-mmlab": (("open-mmlab://", "openmmlab://"), mmengine_checkpoint.get_external_models),
    "mmcls": (("mmcls://",), mmengine_checkpoint.get_mmcls_models),
}
OURS = ("", "http://", "https://", *(prefix for prefixes, _ in ZOOS.values() for prefix in prefixes))
# Those of closed storages cannot be fetched here: they are refused unless they are trusted.
CLOSED = ("pavi://", r"(\S+\:)?s3://", r"(\S+\:)?petrel://")


@contextlib.contextmanager
def safe_readers(trusted: bool = False) -> Iterator[None]:
    """Let mmengine read every checkpoint as :func:`open_checkpoint` does, on the CPU.

    This reaches ``load_from``, ``resume``, ``init_cfg=dict(type='Pretrained')`` and what models and hooks load by
    themselves. mmengine's own readers call ``torch.load``, and fall back to ``weights_only=False`` when it refuses.

    Args:
        trusted: Whether a file that holds more than plain data may be unpickled.
    """

    def load_from_checked_file(filename: str, map_location: Any = None) -> dict[str, Any]:
        checkpoint = open_checkpoint(fetch_checkpoint(filename), trusted)
        if filename.startswith(ZOOS["mmcls"][0]):
            return mmengine_checkpoint._process_mmcls_checkpoint(checkpoint)
        return checkpoint

    with checkpoint_readers(OURS if trusted else (*OURS, *CLOSED), load_from_checked_file):
        yield


def fetch_checkpoint(source: str | os.PathLike) -> Path:
    """Return the path of a checkpoint; one at an address, or of a model zoo, is downloaded first.

    Raises:
        UserError: The address cannot be reached, or is of another kind.
    """
    place = _resolved(str(source))
    return place if isinstance(place, Path) else fetch(place)


def is_at_hand(source: str) -> bool:
    """Return whether a checkpoint lies on this machine, so that nothing has to be downloaded."""
    place = _resolved(source)
    return place.is_file() if isinstance(place, Path) else cached(place) is not None


def check_pretrained(model: Any, trusted: bool = False, *, download: bool) -> None:
    """Open every checkpoint from which the parts of a model begin, before any of them is built.

    Args:
        model: The config's ``model``.
        trusted: Whether a file that holds more than plain data may be unpickled.
        download: Whether to fetch what is at an address; if not, what was never fetched is not checked.

    Raises:
        UserError: One is missing, broken or not trusted.
    """
    for key, source in _pretrained("model", model):
        try:
            place = _resolved(source)
            if not isinstance(place, Path):
                found = fetch(place) if download else cached(place)
                if found is None:
                    logger.warning("%s=%s is not checked: it is downloaded when the run starts", key, source)
                    continue
                place = found
            checkpoint = open_checkpoint(place, trusted)
            if "state_dict" in checkpoint and not weights_of(checkpoint, place):
                raise UserError(f"checkpoint {place}: state_dict is empty")
        except UserError as error:
            raise UserError(f"{key}: {error}") from error


def _pretrained(path: str, node: Any) -> Iterator[tuple[str, str]]:
    """Yield the key and the value of every place in a config where mmengine's models name a checkpoint."""
    if isinstance(node, Mapping):
        kind = node.get("type")
        name = kind.rpartition(".")[2] if isinstance(kind, str) else getattr(kind, "__name__", "")
        for key, value in node.items():
            is_named = key in ("pretrained", "teacher_ckpt") or (
                key == "checkpoint" and name in ("Pretrained", "PretrainedInit")
            )
            if is_named and isinstance(value, str):
                yield f"{path}.{key}", value
            else:
                yield from _pretrained(f"{path}.{key}", value)
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            yield from _pretrained(f"{path}.{index}", value)


def _resolved(source: str) -> Path | str:
    """Return the file that a source names, or the http(s) address."""
    scheme, separator, name = source.partition("://")
    if not separator:
        return Path(source).expanduser()
    if scheme in ("http", "https"):
        return source
    for zoo, (prefixes, models) in ZOOS.items():
        if f"{scheme}://" not in prefixes:
            continue
        known = models()
        name = mmengine_checkpoint.get_deprecated_model_names().get(name, name) if zoo == "open-mmlab" else name
        if name not in known:
            raise UserError(f"checkpoint {source}: {zoo}'s model zoo has no {name}")
        address = known[name]
        return address if "://" in address else Path(mmengine_checkpoint._get_mmengine_home(), address)
    raise UserError(f"checkpoint {source}: {scheme}:// cannot be checked before it is loaded; download it yourself")
