"""Which code answers for mmcv's operators: compiled, ours in pure Python, or none."""

from __future__ import annotations

import shlex
from pathlib import Path

import cvplugins
from cvplugins.doctor import Facts, Finding, owners
from cvplugins.doctor.findings import error, ok, warning
from cvplugins.doctor.import_errors import Package, explain

from .doctor_files import Files

__all__ = ["check_operators", "operators_folder", "shown"]

NAME, OURS = "operators", "cvplugins-mmcv-ops"


def check_operators(facts: Facts, files: Files) -> Finding:
    """Return which operators mmcv has; it is installed."""
    outcome = facts.outcome("mmcv.ops")
    if not files.compiled and not files.pure:
        value = "none: mmcv.ops stops with \"No module named 'mmcv._ext'\""
        if files.compiled_for_others:
            value += f"; {files.compiled_for_others[0]} is for another Python"
        return error(NAME, value, _install_ours(facts))
    if outcome.needs == "mmcv" or outcome.missing == "mmcv" or outcome.state == "missing":
        return error(NAME, "not tried, because mmcv cannot be imported", "mend mmcv first")
    if outcome.state != "ok":
        return _broken(facts, files)
    if not outcome.answers.get("compiled"):
        return ok(NAME, f"{OURS} {facts.version(OURS)}: torchvision's kernels and torch, nothing compiled")
    return _compiled(facts, files, str(outcome.answers.get("cuda", "")))


def _compiled(facts: Facts, files: Files, cuda: str) -> Finding:
    if "." not in cuda:  # "not available", in the words of mmcv/ops/csrc
        value = f"compiled for the CPU only: {files.compiled}"
        return error(NAME, f"{value}, beside a GPU", _without(facts, files)) if facts.has_gpu else ok(NAME, value)
    value = f"compiled for CUDA {cuda}: {files.compiled}"
    of_torch = str(facts.outcome("torch").answers.get("cuda", ""))
    if of_torch and of_torch.partition(".")[0] != cuda.partition(".")[0]:
        return warning(NAME, f"{value}, beside a torch for CUDA {of_torch}", _without(facts, files))
    return ok(NAME, value)


def _broken(facts: Facts, files: Files) -> Finding:
    outcome = facts.outcome("mmcv.ops")
    found = next(iter(owners(facts.distributions, "mmcv")), None)
    if not files.compiled:
        ours = Package(NAME, OURS, facts.version(OURS), facts.torch_version)
        problem = explain(ours, outcome, facts.installer)
        return problem if outcome.needs or outcome.missing else error(NAME, problem.value, _install_ours(facts))
    package = Package(NAME, found.name if found else "mmcv", found.version if found else "", facts.torch_version)
    problem = explain(package, outcome, facts.installer)
    if outcome.needs or outcome.missing:
        return problem
    return error(NAME, f"{files.compiled}: {problem.value}", _without(facts, files))


def _without(facts: Facts, files: Files) -> str:
    """Return the command that lets our operators take the place of the compiled ones: Python prefers the latter."""
    remove = f"rm {shlex.quote(files.compiled)}"
    return remove if files.pure else f"{remove} && {_install_ours(facts)}"


def _install_ours(facts: Facts) -> str:
    """Return the command that installs our operators, from the checkout where this is one."""
    folder = operators_folder()
    return facts.installer.install(OURS) if folder is None else facts.installer.reinstall(shown(folder))


def shown(folder: Path) -> str:
    """Return a folder for a shell: from the current one, if it lies in that."""
    current = Path.cwd()
    relative = f"./{folder.relative_to(current).as_posix()}" if folder.is_relative_to(current) else str(folder)
    return shlex.quote(relative)


def operators_folder() -> Path | None:
    """Return where this checkout has our operators, None if it is no checkout."""
    folder = Path(cvplugins.__file__).parents[1] / "packages" / "mmcv-ops"
    return folder if folder.is_dir() else None
