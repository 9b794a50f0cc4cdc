"""What Detectron2 and the original Mask2Former say of themselves; called in the process that tries imports."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

__all__ = ["describe_detectron2", "describe_mask2former"]


def describe_detectron2() -> dict[str, Any]:
    """Return version and folder, and whether the extension is compiled."""
    import detectron2

    folder = Path(detectron2.__file__).parent
    return {
        "version": detectron2.__version__,
        "folder": str(folder),
        "has_configs": (folder / "model_zoo" / "configs").is_dir(),
        "compiled": importlib.util.find_spec("detectron2._C") is not None,
    }


def describe_mask2former() -> dict[str, Any]:
    """Import the checkout as a training does, and return where it is; an empty folder if none is named.

    Raises:
        UserError: The named folder is no checkout, or a package that it needs is missing.
    """
    if not os.environ.get("MASK2FORMER_ROOT") and importlib.util.find_spec("mask2former") is None:
        return {"folder": ""}
    from cvplugins.detectron2.mask2former.checkout import import_mask2former

    return {"folder": str(Path(import_mask2former().__file__ or "").parents[1])}
