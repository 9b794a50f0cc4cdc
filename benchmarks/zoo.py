"""Which configs of mmdet's and mmseg's zoos run on the operators of mmcv that are installed.

    python benchmarks/zoo.py build docs/operators/zoo.json    # the model of every config, random weights, no network
    python benchmarks/zoo.py run docs/operators/zoo.json      # of each family, a training step and a prediction

The second takes one model of each family (folder of configs) that was built, gives it random images (zoo_batches.py)
and writes down which operators of mmcv it asks for. Each model has a process of its own,
so that one that dies or hangs stops nothing. The two take about 10 and 40 minutes of one core. The page
docs/operators.md is made from their file.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import mmcv._ext
import mmcv.ops
import mmdet.utils
import mmseg.utils
import torch
from cvplugins.openmmlab.run.compat import make_mmseg_configs_reachable
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from benchmarks.zoo_batches import Batch, batches, keep_sizes

ROOTS = {name: Path(zoo.__path__[0]) / ".mim" / "configs" for name, zoo in (("mmdet", mmdet), ("mmseg", mmseg))}
TRIES = 2  # models of a family that are tried until one trains and predicts
SMALL = ("r18", "tiny", "r50", "-t_", "_t_", "-s_", "_s_", "small", "b0")


def families(zoo: str) -> dict[str, list[Path]]:
    """Return the configs with a model of a zoo by family, those of small models first."""
    found: dict[str, list[Path]] = {}
    for path in sorted(ROOTS[zoo].rglob("*.py")):
        if "_base_" not in path.parts:
            found.setdefault(path.relative_to(ROOTS[zoo]).parts[0], []).append(path)
    return {family: sorted(paths, key=_weight) for family, paths in sorted(found.items())}


def _weight(path: Path) -> tuple[bool, int, str]:
    return not any(small in path.name for small in SMALL), len(path.name), path.name


def build(path: Path) -> str:
    """Build a config's model; its weights are whatever memory holds, which is enough to see that it can be built."""
    for name in [each for each in vars(nn.init) if each.endswith("_") and not each.startswith("_")]:
        setattr(nn.init, name, lambda tensor, *args, **kwargs: tensor)
    _join_processes()
    config = Config.fromfile(path)
    if "model" not in config:
        return "no model"
    _model(config)
    return "built"


def step_and_predict(path: Path) -> dict[str, Any]:
    """Make a training step and a prediction with a config's model, and name the operators that it asks for."""
    torch.manual_seed(0)
    for name in ("iter", "epoch"):  # losses that change with time ask for it
        MessageHub.get_current_instance().update_info(name, 0)
    config = Config.fromfile(path)
    candidates = batches(config)
    keep_sizes(config)
    _join_processes()
    model = revert_sync_batchnorm(_model(config))
    torch.distributed.destroy_process_group()
    with asked_operators() as asked:
        outcome = _first_that_works(model, candidates)
    return {**outcome, "operators": sorted(asked)}


def _join_processes() -> None:
    """Make a process group of this process: mmcv's SyncBN asks for one when it is built."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)


class _Recorder:
    """Stands in for ``mmcv._ext`` and remembers what it is asked for."""

    def __init__(self, asked: set[str]) -> None:
        self.asked = asked

    def __getattr__(self, name: str) -> Any:
        self.asked.add(name)
        return getattr(mmcv._ext, name)


@contextlib.contextmanager
def asked_operators() -> Iterator[set[str]]:
    """Yield the set of the names that mmcv asks its compiled module for meanwhile."""
    asked: set[str] = set()
    homes = [each for name, each in sys.modules.items() if name.startswith("mmcv.") and hasattr(each, "ext_module")]
    for module in homes:
        module.ext_module = _Recorder(asked)
    try:
        yield asked
    finally:
        for module in homes:
            module.ext_module = mmcv._ext


def _model(config: Config) -> nn.Module:
    init_default_scope(config.get("default_scope", "mmengine"))
    return MODELS.build(config.model)


def _first_that_works(model: nn.Module, candidates: Iterator[Batch]) -> dict[str, Any]:
    """Return the kind of prediction for the first batch that the model takes.

    Raises:
        _Refused: It takes none.
    """
    error = ""
    optimizer = OptimWrapper(torch.optim.SGD([each for each in model.parameters() if each.requires_grad], lr=1e-6))
    for batch in candidates:
        try:
            model.train().train_step(batch.train, optimizer)
            with torch.no_grad():
                predicted = model.eval().test_step(batch.test)
        except NotImplementedError:
            raise
        except Exception as caught:
            error = error or _line(caught)
            continue
        return {"predicted": type(predicted[0]).__name__}
    raise _Refused(error)


class _Refused(Exception):
    """No batch suits a model; the message is the first error."""


def _line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = f"{type(error).__name__}: {lines[0] if lines else _place(error)}"
    for root in ROOTS.values():
        text = text.replace(f"{root.parents[2]}/", "")  # where packages are installed here
    return re.sub(r"\s+", " ", text)[:200]


def _place(error: BaseException) -> str:
    """Return where an error without words comes from."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else ""


def _alone(job: Callable[[Path], Any], path: Path, seconds: float) -> Any:
    """Call ``job(path)`` in a process of its own, and return its result, or ``{"error": ...}``."""
    ours, theirs = multiprocessing.get_context("fork").Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_send, args=(job, path, theirs))
    process.start()
    theirs.close()
    try:
        return ours.recv() if ours.poll(seconds) else {"error": f"no answer within {seconds:.0f} s"}
    except EOFError:
        process.join()
        return {"error": f"the process died with exit code {process.exitcode}"}
    finally:
        process.kill()
        process.join()
        ours.close()


def _send(job: Callable[[Path], Any], path: Path, pipe: Connection) -> None:
    with open("/dev/null", "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        try:
            result = job(path)
        except (Exception, SystemExit) as error:
            result = {"error": str(error) if isinstance(error, _Refused) else _line(error)}
    pipe.send(result)


def survey_builds(zoo: str, only: list[str], seconds: float) -> dict[str, Any]:
    """Return, for each family of a zoo, what became of each of its configs: ``"built"``, or an error."""
    result: dict[str, Any] = {}
    for family, paths in families(zoo).items():
        if not only or family in only:
            built = {str(path.relative_to(ROOTS[zoo])): _alone(build, path, seconds) for path in paths}
            result[family] = {name: outcome for name, outcome in built.items() if outcome != "no model"}
            print(f"{zoo} {family}: {sum(each == 'built' for each in built.values())} of {len(built)}", flush=True)
    return result


def survey_runs(zoo: str, only: list[str], seconds: float, built: dict[str, Any]) -> dict[str, Any]:
    """Return, for each family of a zoo with a model that can be built, what became of the first one that runs."""
    result: dict[str, Any] = {}
    for family, configs in built.items():
        if only and family not in only:
            continue
        for name in [name for name, outcome in configs.items() if outcome == "built"][:TRIES]:
            outcome = _alone(step_and_predict, ROOTS[zoo] / name, seconds)
            if "error" not in outcome or family not in result:
                result[family] = {"config": name, **outcome}
            if "error" not in outcome:
                break
        print(f"{zoo} {family}: {result.get(family)}", flush=True)
    return result


def main() -> int:
    """Read the command line, survey the zoos, and add the result to the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["build", "run"])
    parser.add_argument("file", type=Path, help="JSON file to write, or to add to")
    parser.add_argument("--only", nargs="+", default=[], metavar="FAMILY", help="families; all if absent")
    parser.add_argument("--zoo", choices=[*ROOTS], nargs="+", default=[*ROOTS])
    parser.add_argument("--seconds", type=float, default=180, help="time for each model")
    arguments = parser.parse_args()
    make_mmseg_configs_reachable()
    for register in (mmdet.utils.register_all_modules, mmseg.utils.register_all_modules):
        register(init_default_scope=False)  # once, before the processes part
    torch.set_num_threads(1)
    found: dict[str, Any] = json.loads(arguments.file.read_text(encoding="utf-8")) if arguments.file.is_file() else {}
    found["operators"] = "cvplugins-mmcv-ops" if (mmcv._ext.__file__ or "").endswith(".py") else "compiled"
    packages = ("torch", "torchvision", "onedl-mmcv", "onedl-mmdetection", "onedl-mmsegmentation")
    found["versions"] = {name: version(name) for name in packages}
    for zoo in arguments.zoo:
        kept = found.setdefault(arguments.what, {}).setdefault(zoo, {})
        if arguments.what == "build":
            kept.update(survey_builds(zoo, arguments.only, arguments.seconds))
        else:
            kept.update(survey_runs(zoo, arguments.only, arguments.seconds, found["build"][zoo]))
        arguments.file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
