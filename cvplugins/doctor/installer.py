"""The commands that install packages into this very environment, so that a next step can be pasted into a shell."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Installer", "find_installer", "this_installer"]


@dataclass(frozen=True)
class Installer:
    """Writes commands of pip or uv.

    Attributes:
        pip: The command with its subject, such as ``"python -m pip"``.
        uv: The same of uv, which alone finds the build of torch that fits the GPU's driver.

    >>> Installer("uv pip").reinstall("scipy==1.17")
    'uv pip install --no-deps --reinstall scipy==1.17'
    >>> Installer().reinstall("scipy==1.17")
    'python -m pip install --no-deps --force-reinstall scipy==1.17'
    """

    pip: str = "python -m pip"
    uv: str = "uv pip"

    def install(self, what: str) -> str:
        """Return the command that installs, or brings to another version."""
        return f"{self.pip} install {what}"

    def reinstall(self, what: str) -> str:
        """Return the command that installs again what is installed, and nothing else."""
        option = "--reinstall" if self._is_uv else "--force-reinstall"
        return self.install(f"--no-deps {option} {what}")

    def uninstall(self, what: str) -> str:
        """Return the command that removes without a question."""
        return f"{self.pip} uninstall {what}" if self._is_uv else f"{self.pip} uninstall -y {what}"

    def torch(self, version: str = "") -> str:
        """Return the command that installs torch and the torchvision for it, both for this machine's driver."""
        exact = f"torch=={version.partition('+')[0]}" if version else "torch"
        packages = f"--reinstall-package torch --reinstall-package torchvision {exact} torchvision"
        return f"{self.uv} install --torch-backend=auto {packages}"

    @property
    def _is_uv(self) -> bool:
        return self.pip == self.uv


def find_installer(
    *, executable: str, prefix: str, has_pip: bool, has_uv: bool, first_python: str | None, active: str
) -> Installer:
    """Return the commands for an environment.

    Args:
        executable: The Python that runs.
        prefix: Its environment.
        has_pip: Whether that has pip.
        has_uv: Whether there is uv.
        first_python: The ``python`` that a shell would start.
        active: The environment that uv would take.

    >>> python = "/env/bin/python"
    >>> find_installer(executable=python, prefix="/env", has_pip=False, has_uv=True, first_python=None, active="/env")
    Installer(pip='uv pip', uv='uv pip')
    >>> find_installer(executable=python, prefix="/env", has_pip=True, has_uv=False, first_python=python, active="")
    Installer(pip='python -m pip', uv='python -m pip install uv && UV_PYTHON=/env/bin/python uv pip')
    """
    uv = "uv pip" if active and Path(active) == Path(prefix) else f"UV_PYTHON={executable} uv pip"
    if not has_pip:
        return Installer(uv, uv)
    is_first = first_python is not None and os.path.dirname(first_python) == os.path.dirname(executable)
    pip = f"{'python' if is_first else executable} -m pip"
    return Installer(pip, uv if has_uv else f"{pip} install uv && {uv}")


def this_installer(environment: Mapping[str, str] = os.environ) -> Installer:
    """Return the commands for the environment that runs."""
    local = Path(".venv").absolute()
    active = environment.get("VIRTUAL_ENV", "") or (str(local) if local.is_dir() else "")
    return find_installer(
        executable=sys.executable,
        prefix=sys.prefix,
        has_pip=importlib.util.find_spec("pip") is not None,
        has_uv=shutil.which("uv") is not None,
        first_python=shutil.which("python"),
        active=active,
    )
