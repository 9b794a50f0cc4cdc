"""What the errors mean that broken packages raise when they are imported, and what mends them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from .findings import Finding, error
from .imports import Outcome
from .installer import Installer

__all__ = ["Package", "explain"]

# Distributions whose name is not the one that is imported.
DISTRIBUTIONS = {
    "cv2": "opencv-python",
    "PIL": "pillow",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
    "pkg_resources": '"setuptools<82"',  # the first one without it
}


@dataclass(frozen=True)
class Package:
    """A package as an installer knows it.

    Attributes:
        name: How findings call it.
        distribution: Its distribution's name.
        version: Its version.
        torch: The version of torch beside it.
        build_options: What its installation needs before its name, such as ``--no-build-isolation``.
    """

    name: str
    distribution: str
    version: str
    torch: str = ""
    build_options: str = ""

    @property
    def exact(self) -> str:
        """What to tell an installer for this very version."""
        return f"{self.build_options} {self.distribution}=={self.version.partition('+')[0]}".lstrip()


@dataclass(frozen=True)
class KnownError:
    """Words of an error, what they mean, and the next step."""

    words: str
    meaning: str
    advice: Callable[[Installer, Package], str]


KNOWN = (
    KnownError(
        r"lib(GL|EGL|gthread|glib|xcb|SM|Xext)\b.*cannot open shared object",
        "a library of the desktop is missing",
        lambda installer, package: (
            f"{installer.uninstall(package.distribution)} && {installer.reinstall('opencv-python-headless')}"
        ),
    ),
    KnownError(
        r"_ARRAY_API not found|compiled using NumPy 1|multiarray failed to import|numpy\.dtype size changed"
        r"|module compiled against A[BP]I version",
        "it was built for another NumPy",
        lambda installer, package: installer.install(f"--upgrade {package.distribution} numpy"),
    ),
    KnownError(
        r"operator torchvision::\w+ does not exist|Couldn't load custom C\+\+ ops",
        "it was built for another torch",
        lambda installer, package: installer.torch(package.torch),
    ),
    KnownError(
        r"undefined symbol|[Ss]ymbol not found",
        "a compiled file in it was built for another version of a library, most often of torch",
        lambda installer, package: installer.reinstall(package.exact),
    ),
    KnownError(
        r"GLIBC(XX)?_[\d.]+'? not found",
        "it was built for a newer system",
        lambda installer, package: f"take a newer system or container, or an older {package.distribution}",
    ),
    KnownError(
        r"cannot open shared object file",
        "a library that it was built with is missing",
        lambda installer, package: installer.install(f"--force-reinstall {package.exact}"),
    ),
)


def explain(package: Package, outcome: Outcome, installer: Installer) -> Finding:
    """Return the error for a package that is installed and cannot be imported.

    >>> outcome = Outcome("raised", "No module named 'PIL'", "ModuleNotFoundError", "torchvision", missing="PIL")
    >>> explain(Package("torchvision", "torchvision", "0.27.0"), outcome, Installer()).advice
    'python -m pip install pillow'
    """
    if outcome.needs:
        broken = outcome.needs.partition(".")[0]
        return error(package.name, f"{package.version}, needs {outcome.needs}, which is broken", f"mend {broken} first")
    if outcome.missing:
        missing = outcome.missing.partition(".")[0]
        return error(
            package.name,
            f"{package.version}, needs {outcome.missing}, which is not installed",
            installer.install(DISTRIBUTIONS.get(missing, missing)),
        )
    if outcome.state in ("died", "hung"):
        doing, how = "import" if outcome.module else "use", "hangs" if outcome.state == "hung" else "crashes"
        value = f"{package.version}, its {doing} {how}: {outcome.error}"
        return error(package.name, value, installer.reinstall(package.exact))
    said = shortened(f"{outcome.type}: {outcome.error}")
    for known in KNOWN:
        if re.search(known.words, outcome.error):
            return error(package.name, f"{package.version}, {known.meaning} ({said})", known.advice(installer, package))
    return error(package.name, f"{package.version}, {said}", installer.reinstall(package.exact))


def shortened(text: str, length: int = 240) -> str:
    r"""Return an error in one line: its beginning, and its last line, where the cause stands.

    >>> shortened("a\n  b\nc")
    'a ... c'
    """
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    line = lines[0] if len(lines) == 1 else f"{lines[0]} ... {lines[-1]}"
    return line if len(line) <= length else f"{line[: length - 4].rstrip()} ..."
