"""OpenMMLab's section of ``cvplugins doctor``: whether its packages fit each other, and whose operators are active.

No framework is imported here: versions come from metadata, bounds from the text of the packages' own checks, and the
imports are tried in the process that :mod:`cvplugins.doctor` starts.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from cvplugins.doctor import Distribution, Facts, Finding, Part, Probe, owners
from cvplugins.doctor.findings import error, ok, warning
from cvplugins.doctor.import_errors import Package, explain
from cvplugins.doctor.versions import fits, is_older

from .doctor_files import Files, read_files
from .doctor_operators import check_operators, operators_folder, shown

__all__ = ["PART", "check"]


@dataclass(frozen=True)
class Library:
    """A package of OpenMMLab.

    Attributes:
        name: What is imported.
        fork: The distribution that is maintained.
        originals: Those of OpenMMLab itself; the one to install comes first.
    """

    name: str
    fork: str
    originals: tuple[str, ...]


LIBRARIES = (
    Library("mmengine", "onedl-mmengine", ("mmengine", "mmengine-lite")),
    Library("mmcv", "onedl-mmcv", ("mmcv-lite", "mmcv", "mmcv-full")),  # mmcv has to be compiled
    Library("mmdet", "onedl-mmdetection", ("mmdet",)),
    Library("mmseg", "onedl-mmsegmentation", ("mmsegmentation",)),
)
NAMES = tuple(library.name for library in LIBRARIES)
VERSION = "cvplugins.openmmlab.run.doctor_probes:describe_version"
PROBES = (
    Probe("mmengine", ("mmengine", "mmengine.runner"), VERSION, ("mmengine",)),
    Probe("mmcv", ("mmcv",), VERSION, ("mmcv",)),
    Probe("mmcv.ops", ("mmcv.ops",), "cvplugins.openmmlab.run.doctor_probes:describe_operators"),
    Probe("mmdet", ("mmdet", "mmdet.models", "mmdet.datasets", "mmdet.evaluation"), VERSION, ("mmdet",)),
    Probe("mmseg", ("mmseg", "mmseg.models", "mmseg.datasets", "mmseg.evaluation"), VERSION, ("mmseg",)),
)


def check(facts: Facts, files: Files) -> list[Finding]:
    """Return what is to be said of OpenMMLab's packages.

    Args:
        facts: The machine and the environment.
        files: What the packages' files say without being imported.
    """
    present = [library for library in LIBRARIES if _is_present(facts, library)]
    if not present:
        return [ok("OpenMMLab", "not installed", _install_all(facts))]
    findings = []
    for library in LIBRARIES:
        findings += _library(facts, files, library, present)
        if library.name == "mmcv" and library in present:
            findings.append(check_operators(facts, files))
    lacking = facts.lacks_pkg_resources(NAMES)
    if lacking:
        findings.append(error("setuptools", lacking, facts.installer.install('"setuptools<82"')))
    return findings


def _install_all(facts: Facts) -> str:
    """Return the command that installs the forks and our operators, from the checkout where this is one."""
    operators = operators_folder()
    if operators is None:
        return facts.installer.install("'cvplugins[openmmlab]'")
    checkout = shlex.quote(f"{operators.parents[1]}[openmmlab]")
    return facts.installer.install(f"-e {checkout} {shown(operators)}")


def _is_present(facts: Facts, library: Library) -> bool:
    return bool(owners(facts.distributions, library.name)) or facts.outcome(library.name).state != "missing"


def _library(facts: Facts, files: Files, library: Library, present: Sequence[Library]) -> list[Finding]:
    """Return the first reason why a package cannot be used, or what is good to know of it."""
    name, outcome = library.name, facts.outcome(library.name)
    if library not in present:
        return [_absent(facts, library, present)]
    found = owners(facts.distributions, name)
    if len(found) > 1:
        return [_several(facts, library, found)]
    problems = _unfit(facts, files, library)
    if problems:
        return problems
    version = found[0].version if found else str(outcome.answers.get("version", ""))
    if outcome.missing.partition(".")[0] in NAMES:
        missing = outcome.missing.partition(".")[0]
        return [error(name, f"{version}, needs {missing}, which is not installed", f"mend {missing} first")]
    if outcome.needs.startswith("mmcv."):
        return [error(name, f"{version}, needs {outcome.needs}, which is broken", "mend the operators first")]
    if outcome.state != "ok":
        distribution = found[0].name if found else library.fork
        return [explain(Package(name, distribution, version, facts.torch_version), outcome, facts.installer)]
    if not found:
        return [ok(name, f"{version} from a folder on the path, not installed")]
    return [_numpy_2(facts, library, found[0]) or ok(name, f"{version} ({found[0].name}, {_kind(library, found[0])})")]


def _kind(library: Library, distribution: Distribution) -> str:
    return "the maintained fork" if distribution.name == library.fork else "the original"


def _absent(facts: Facts, library: Library, present: Sequence[Library]) -> Finding:
    """The others need mmengine and mmcv; only their own models need mmdet and mmseg."""
    if library.name in ("mmdet", "mmseg"):
        return ok(library.name, "not installed", facts.installer.install(_wanted(facts, library)))
    needing = " and ".join(each.name for each in present if each.name != "mmengine") or "mmcv"
    return error(
        library.name, f"not installed, and {needing} needs it", facts.installer.install(_wanted(facts, library))
    )


def _wanted(facts: Facts, library: Library) -> str:
    """Return the distribution of the family that the others are of; the forks if there are none."""
    originals = {name for each in LIBRARIES for name in each.originals}
    forks = {each.fork for each in LIBRARIES}
    is_original = bool(originals & facts.distributions.keys()) and not forks & facts.distributions.keys()
    return library.originals[0] if is_original else library.fork


def _several(facts: Facts, library: Library, found: Sequence[Distribution]) -> Finding:
    """All of them write the same folder: keep the fork, else the one that needs no compiler."""
    order = (library.fork, *library.originals)
    kept = min(found, key=lambda each: order.index(each.name) if each.name in order else len(order))
    value = " and ".join(f"{each.name} {each.version}" for each in found)
    remove = facts.installer.uninstall(" ".join(each.name for each in found))
    return error(
        library.name,
        f"{value} install the same package: files of one hide or replace those of another",
        f"{remove} && {facts.installer.install(f'{kept.name}=={kept.version}')}",
    )


def _unfit(facts: Facts, files: Files, library: Library) -> list[Finding]:
    """Return where a package's own check, or its metadata, refuses the version of another."""
    findings = []
    for other in LIBRARIES[:2]:
        found = owners(facts.distributions, other.name)
        wanted = files.bounds.get((library.name, other.name)) or _metadata_bounds(facts, library, other)
        if not (wanted and found) or fits(found[0].version, wanted):
            continue
        mine = "".join(f"{each.version} " for each in owners(facts.distributions, library.name))
        right = other.fork if found[0].name == other.fork else other.originals[0]
        remove, install = facts.installer.uninstall(found[0].name), facts.installer.install(f'"{right}{wanted}"')
        value = f"{mine}takes {other.name} {wanted}, and there is {found[0].version}"
        findings.append(error(library.name, value, f"{remove} && {install}"))
    return findings


def _metadata_bounds(facts: Facts, library: Library, other: Library) -> str:
    """Return the range in a distribution's metadata, which the forks keep in an extra of their own."""
    for mine in owners(facts.distributions, library.name):
        for needed in mine.requirements:
            if needed.name in (other.fork, *other.originals) and needed.extra in ("", "mminstall"):
                return needed.specifiers
    return ""


def _numpy_2(facts: Facts, library: Library, distribution: Distribution) -> Finding | None:
    version = facts.version("numpy")
    if distribution.name == library.fork or not version or is_older(version, "2"):
        return None
    return warning(
        library.name,
        f"{distribution.version} (the original), which was made for NumPy 1, beside NumPy {version}",
        facts.installer.install('"numpy<2" "opencv-python<4.12"'),
    )


PART = Part("OpenMMLab", lambda facts: check(facts, read_files()), PROBES, NAMES)
