"""Where a run of Detectron2 starts: checkpoints found again, checked, and refused if they are of another model."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlparse

import torch
from detectron2.config import CfgNode
from detectron2.utils.file_io import Detectron2Handler, PathManager
from iopath.common.file_io import get_cache_dir  # type: ignore[import-untyped]

from cvplugins import downloads
from cvplugins.errors import UserError, first_line
from cvplugins.optimizer_state import check_optimizer_fits, check_optimizer_state
from cvplugins.safe_loading import BrokenCheckpointError, check_weights, open_checkpoint

from .checkpoint import CvpluginsCheckpointer, run_folder

__all__ = [
    "RunCheckpointer",
    "check_exists",
    "check_optimizer",
    "is_at_hand",
    "last_checkpoint",
    "loading_explained",
    "open_for_resume",
]

STATISTICS = ("running_mean", "running_var")
ZOO = Detectron2Handler.S3_DETECTRON2_PREFIX


class RunCheckpointer(CvpluginsCheckpointer):
    """A checkpointer that can insist on whole weights."""

    _incompatible: Any = None

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Load a file, or an address that is fetched first.

        Raises:
            UserError: The file is missing, broken or not trusted, or the address cannot be reached.
        """
        return super().load(self.fetched(path), *args, **kwargs)

    def load_whole(self, path: str | os.PathLike[str]) -> None:
        """Load the weights of a model of this architecture, and nothing else.

        Raises:
            UserError: A weight of the model is missing or has another shape. Detectron2 only logs that, and the score
                of a random layer is all that one sees.
        """
        check_exists(path)
        self.load(str(path), checkpointables=[])
        self.require_whole(path)

    def require_whole(self, path: str | os.PathLike[str]) -> None:
        """Raise ``UserError`` if what was loaded last did not fill the model."""
        found = self._incompatible
        problems = [f"{name} is {tuple(has)}, not {tuple(wants)}" for name, has, wants in found.incorrect_shapes]
        known = {name for name, *_ in found.incorrect_shapes}  # which are missing ones too
        problems += [f"{name} is missing" for name in found.missing_keys if name not in known]
        if problems:
            shown = "; ".join(problems[:3]) + (f"; and {len(problems) - 3} more" if len(problems) > 3 else "")
            raise UserError(
                f"checkpoint {path} is of another architecture than the config: {shown}. "
                "Give the config that it was trained with (config.yaml in the work dir)"
            )
        self._require_finite(path)

    def _require_finite(self, path: str | os.PathLike[str]) -> None:
        """Raise ``UserError`` if weights or statistics that were loaded last are NaN or infinite.

        Other buffers may hold infinity, as attention masks do.
        """
        found = self._incompatible
        kept = {*found.missing_keys, *(name for name, *_ in found.incorrect_shapes)} if found is not None else set()
        buffers = ((name, value) for name, value in self.model.named_buffers() if name.endswith(STATISTICS))
        for name, value in (*self.model.named_parameters(), *buffers):
            if name not in kept:
                _check_finite(value, f"checkpoint {path}", name)

    def _opened_to_resume(self, path: Path) -> None:
        open_for_resume(path, self.trusted)

    def load_to_begin(self, path: str) -> None:
        """Load weights to begin with, of which some may be missing or of another shape.

        Raises:
            UserError: Not one fits the model. Detectron2 only logs that, and begins with random weights.
        """
        self.load(path, checkpointables=[])
        found = self._incompatible
        if found is not None and set(found.missing_keys) >= {name for name, _ in self.model.named_parameters()}:
            raise UserError(
                f"checkpoint {path}: none of its weights fits the model of the config; "
                "give the checkpoint of such a model, or an empty MODEL.WEIGHTS"
            )
        self._require_finite(path)

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        self._incompatible = super()._load_model(checkpoint)
        return self._incompatible

    @staticmethod
    def fetched(path: str) -> str:
        """Return the local path of a file or address, with what Detectron2 reads from its query."""
        if "://" not in path:
            return path
        if path.startswith(("http://", "https://")) and not path.startswith(ZOO):
            address, query = _split(path)
            return f"{downloads.fetch(address)}{query}"
        address, mark, query = path.partition("?")
        try:
            found = PathManager.get_local_path(address)
        except (OSError, RuntimeError, ValueError) as error:
            raise UserError(f"checkpoint {path} cannot be downloaded ({first_line(error)})") from error
        if not os.path.isfile(found):
            raise UserError(f"checkpoint {path}: Detectron2 knows no such address")
        return f"{found}{mark}{query}"


def check_exists(path: str | os.PathLike[str]) -> None:
    """Raise ``UserError`` for a path where there is no file, or an address of no known kind; none is looked up."""
    if "://" in str(path):
        kinds = [*PathManager._path_handlers]  # what iopath and Detectron2 have registered
        if not str(path).startswith(tuple(kinds)):
            raise UserError(f"checkpoint {path}: no reader knows this kind of address; there are {', '.join(kinds)}")
    elif not Path(str(path).partition("?")[0]).is_file():
        raise UserError(f"checkpoint {path} does not exist; give the path of a .pth or .pkl file")


def is_at_hand(path: str) -> bool:
    """Return whether a file is here, or was downloaded from its address before."""
    if "://" not in path:
        return True
    if path.startswith(Detectron2Handler.PREFIX):
        path = ZOO + path.removeprefix(Detectron2Handler.PREFIX)
    if path.startswith(ZOO):
        return Path(get_cache_dir(), urlparse(path).path.lstrip("/")).is_file()
    return path.startswith(("http://", "https://")) and downloads.cached(_split(path)[0]) is not None


def last_checkpoint(folder: str | os.PathLike[str]) -> str | None:
    """Return the newest checkpoint of a run, None if there is none."""
    found = run_folder(folder).checkpoints()
    return str(found[0]) if found else None


def open_for_resume(path: str | os.PathLike[str], trusted: bool = False) -> dict[str, Any]:
    """Open a checkpoint with which a run shall go on.

    Raises:
        BrokenCheckpointError: It cannot be read, or something in it is not what it should be.
        UserError: It has weights without the state of a run.
    """
    found = open_checkpoint(path, trusted)
    if "model" not in found:
        held = ", ".join(map(str, itertools.islice(found, 4))) or "nothing"
        raise UserError(f"checkpoint {path} is of no run of Detectron2: it has no model; it has {held}")
    trainer: Any = found.get("trainer")
    state: dict[str, Any] = {"model": found.get("model"), "trainer": trainer}
    if isinstance(trainer, Mapping):
        inner, hooks = trainer.get("_trainer"), trainer.get("hooks", {})
        state["trainer.iteration"] = trainer.get("iteration")
        state["trainer._trainer.optimizer"] = inner.get("optimizer") if isinstance(inner, Mapping) else inner
        state["trainer.hooks.LRScheduler"] = hooks.get("LRScheduler") if isinstance(hooks, Mapping) else hooks
    elif trainer is not None:
        raise BrokenCheckpointError(f"checkpoint {path}: trainer is a {type(trainer).__name__}, not a dict")
    if missing := [key for key, value in state.items() if value is None]:
        raise UserError(
            f"checkpoint {path} has no state of a run to resume ({', '.join(missing)}); to begin with its weights, "
            f"leave --resume out and add --cfg-options MODEL.WEIGHTS={path}"
        )
    check_weights(state["model"], f"checkpoint {path}: model")
    iteration = state["trainer.iteration"]
    if not isinstance(iteration, int) or isinstance(iteration, bool) or iteration < -1:
        raise BrokenCheckpointError(f"checkpoint {path}: trainer.iteration is {iteration!r:.40}, not a number")
    seed = trainer.get("seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise BrokenCheckpointError(f"checkpoint {path}: trainer.seed is {seed!r:.40}, not a number")
    check_optimizer_state(state["trainer._trainer.optimizer"], f"checkpoint {path}: trainer._trainer.optimizer")
    if not isinstance(state["trainer.hooks.LRScheduler"], Mapping):
        raise BrokenCheckpointError(f"checkpoint {path}: trainer.hooks.LRScheduler is no state of a schedule")
    return found


@contextlib.contextmanager
def loading_explained(path: str) -> Iterator[None]:
    """Turn what Detectron2 and the hooks raise while they load a checkpoint into one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"checkpoint {path} does not fit the config ({type(error).__name__}: {first_line(error)}); "
            "give the config of the run that wrote it"
        ) from error


def check_optimizer(
    cfg: CfgNode, optimizer: torch.optim.Optimizer, path: str | os.PathLike[str], trusted: bool = False
) -> None:
    """Raise ``UserError`` unless an optimizer, built as the run will, can go on with the state of a checkpoint.

    Its numbers have to be finite.
    """
    state = open_for_resume(path, trusted)["trainer"]["_trainer"]["optimizer"]
    for number, moments in state["state"].items():
        for name, value in moments.items():
            if isinstance(value, torch.Tensor):
                _check_finite(value, f"checkpoint {path}", f"trainer._trainer.optimizer['state'][{number}][{name!r}]")
    if any("OptimizerSwitchHook" in str(entry.get("type")) for entry in cfg.CVPLUGINS.HOOKS):
        return  # the state may be of the other optimizer
    check_optimizer_fits(optimizer, state, f"checkpoint {path}: trainer._trainer.optimizer")


def _check_finite(value: torch.Tensor, source: str, name: str) -> None:
    if value.is_floating_point() and not bool(torch.isfinite(value).all()):
        count = int((~torch.isfinite(value)).sum())
        raise UserError(
            f"{source}: {count} of the {value.numel()} numbers of {name} are NaN or infinite; no training recovers "
            "from that: give an earlier checkpoint"
        )


def _split(path: str) -> tuple[str, str]:
    """Return the address to fetch, and the part of its query that Detectron2 reads itself."""
    parsed = urlparse(path)
    pairs = parse_qsl(parsed.query, keep_blank_values=True)
    ours = [pair for pair in pairs if pair[0] == "matching_heuristics"]
    if not ours:
        return path, ""
    rest = [pair for pair in pairs if pair not in ours]
    return parsed._replace(query=urlencode(rest)).geturl(), f"?{urlencode(ours)}"
