"""Let the processes of the tests keep what they compile, also where Python is told to write no bytecode.

Otherwise each of them compiles all of torch and the frameworks again, which takes longer than the rest of the import.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["keep_bytecode"]

FOLDER = Path(__file__).parent.parent / ".pytest_cache" / "bytecode"  # not beside the sources, where it is unwanted


def keep_bytecode() -> None:
    """Write bytecode into a folder of pytest's cache if Python would write none, here and in the processes to come."""
    if sys.dont_write_bytecode:
        sys.dont_write_bytecode = False
        sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"] = str(FOLDER)
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
