"""Detectron2's section of ``cvplugins doctor``: Detectron2 itself and the original Mask2Former.

No framework is imported here; the imports are tried in the process that :mod:`cvplugins.doctor` starts.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from cvplugins.doctor import Facts, Finding, Part, Probe
from cvplugins.doctor.findings import error, ok, warning
from cvplugins.doctor.import_errors import Package, explain, shortened

__all__ = ["PART", "check"]

PROBES = (
    Probe(
        "detectron2",
        ("detectron2", "detectron2.modeling", "detectron2.engine", "detectron2.evaluation"),
        "cvplugins.detectron2.run.doctor_probes:describe_detectron2",
    ),
    Probe("mask2former", (), "cvplugins.detectron2.run.doctor_probes:describe_mask2former"),
)
INSTALL = "--no-build-isolation git+https://github.com/facebookresearch/detectron2"


def check(facts: Facts) -> list[Finding]:
    """Return what is to be said of Detectron2 and of Mask2Former."""
    findings = [_detectron2(facts), _mask2former(facts)]
    lacking = facts.lacks_pkg_resources(("detectron2",))
    if lacking:
        # Our loader reads the zoo's configs without it.
        findings.append(
            warning(
                "setuptools",
                f"{lacking}: detectron2.model_zoo cannot be used",
                facts.installer.install('"setuptools<82"'),
            )
        )
    return findings


def _detectron2(facts: Facts) -> Finding:
    name, outcome = "Detectron2", facts.outcome("detectron2")
    version = str(outcome.answers.get("version", "")) or facts.version("detectron2")
    if outcome.state == "missing":
        return ok(name, "not installed", facts.installer.install(INSTALL))
    if outcome.missing.startswith("detectron2."):
        return error(
            name,
            f"a folder named detectron2 hides it: there is no {outcome.missing}",
            "start from another folder, or put the checkout's own folder on PYTHONPATH",
        )
    if outcome.state != "ok":
        problem = explain(Package(name, "detectron2", version), outcome, facts.installer)
        if outcome.missing or outcome.needs:
            return problem
        return error(name, problem.value, facts.installer.reinstall(INSTALL))
    folder = Path(outcome.answers["folder"])
    if not outcome.answers["has_configs"]:  # its setup.py links them, so that a folder on the path has none
        link = (
            f"ln -s {shlex.quote(str(folder.parent / 'configs'))} {shlex.quote(str(folder / 'model_zoo' / 'configs'))}"
        )
        return warning(name, f"{version}, without the zoo's configs, which ours inherit from; {folder}", link)
    if outcome.answers["compiled"]:
        return ok(name, f"{version}, compiled; {folder}")
    return ok(name, f"{version}, not compiled: no rotated boxes or deformable convolution; {folder}")


def _mask2former(facts: Facts) -> Finding:
    name, outcome = "Mask2Former", facts.outcome("mask2former")
    root = facts.environment.get("MASK2FORMER_ROOT", "")
    if facts.outcome("detectron2").state != "ok":
        return ok(name, f"not tried without Detectron2{f', MASK2FORMER_ROOT={root}' if root else ''}")
    if outcome.state == "ok":
        folder = outcome.answers.get("folder")
        return ok(name, str(folder) if folder else "the original: none; MASK2FORMER_ROOT would name its checkout")
    if outcome.type == "UserError":
        needed = re.search(r"needs ([\w.]+), which is not installed", outcome.error)
        if needed:
            return error(name, f"{root} {needed.group()}", facts.installer.install(needed.group(1)))
        said, _, advice = outcome.error.rpartition("; ")  # its message ends with the next step
        return error(name, said, advice.replace(", then ", " && "))
    said = shortened(f"{outcome.type}: {outcome.error}" if outcome.type else outcome.error)
    if "'_C' from 'detectron2'" in outcome.error:
        value = f"{root} needs a compiled Detectron2 ({said})"
        return error(name, value, facts.installer.reinstall(INSTALL))
    return error(name, f"{root}: {said}", f"git -C {shlex.quote(root or '.')} status; then clone it anew, or git pull")


PART = Part("Detectron2", check, PROBES, ("detectron2",))
