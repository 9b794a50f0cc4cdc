"""The original Mask2Former (facebookresearch/Mask2Former), imported from a checkout as it is, without its CUDA op."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from cvplugins.errors import UserError

from .attention import attention_module

__all__ = [
    "import_mask2former",
    "import_train_net",
]

PACKAGE, CUDA_OP = "mask2former", "MultiScaleDeformableAttention"
COMPILED, FAST_COCO_EVAL = "detectron2._C", "detectron2.evaluation.fast_eval_api"
CLONE = "git clone https://github.com/facebookresearch/Mask2Former, then export MASK2FORMER_ROOT=$PWD/Mask2Former"


def import_mask2former(root: str | os.PathLike[str] = "") -> ModuleType:
    """Return the package ``mask2former``; without its compiled CUDA op ``cvplugins.ops`` computes.

    Args:
        root: See :func:`find_mask2former`; if empty also what is imported already.

    Raises:
        UserError: The folder is no checkout, another one is imported already, or a package that it needs is missing.
    """
    found = sys.modules.get(PACKAGE)
    if found is None:
        return _import(PACKAGE, find_mask2former(root))
    if root and not Path(found.__file__ or "").resolve().is_relative_to(Path(root).resolve()):
        raise UserError(
            f"CVPLUGINS.MASK2FORMER.ROOT is {root}, but mask2former is already imported from {found.__file__}"
        )
    return found


def import_train_net() -> ModuleType:
    """Return the project's ``train_net.py``, whose ``Trainer`` builds its optimizer.

    Raises:
        UserError: The package is there without the rest of the checkout.
    """
    file = Path(import_mask2former().__file__ or "").parents[1] / "train_net.py"
    if not file.is_file():
        raise UserError(f"{file} does not exist; Mask2Former is needed whole: {CLONE}")
    name = f"{PACKAGE}_train_net"
    return sys.modules.get(name) or _import(name, file)


def find_mask2former(root: str | os.PathLike[str] = "") -> Path:
    """Return the file that makes the package ``mask2former``.

    Args:
        root: Folder of the checkout; if empty ``$MASK2FORMER_ROOT``, or what Python finds.

    Raises:
        UserError: There is none.
    """
    root = root or os.environ.get("MASK2FORMER_ROOT", "")
    if not root:
        spec = importlib.util.find_spec(PACKAGE)
        if spec is None or spec.origin is None:
            raise UserError(
                "this config runs the original Mask2Former; name its folder in MASK2FORMER_ROOT or in "
                f"CVPLUGINS.MASK2FORMER.ROOT: {CLONE}"
            )
        return Path(spec.origin)
    file = Path(root, PACKAGE, "__init__.py")
    if not file.is_file():
        raise UserError(f"{root} is no checkout of Mask2Former: it has no {PACKAGE}/__init__.py; {CLONE}")
    return file


def _import(name: str, file: Path) -> ModuleType:
    """Import a file under a name; its folder is not put on sys.path, for it has ``datasets`` and ``tools`` too."""
    is_package = file.name == "__init__.py"
    spec = importlib.util.spec_from_file_location(
        name, file, submodule_search_locations=[str(file.parent)] if is_package else None
    )
    if spec is None or spec.loader is None:
        raise UserError(f"{file} is no Python module; {CLONE}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with _cuda_op() if is_package else contextlib.nullcontext(), _coco_eval(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # old names of torch and timm
            spec.loader.exec_module(module)
    except ModuleNotFoundError as error:
        del sys.modules[name]
        missing = (error.name or "").partition(".")[0]
        if missing in ("", PACKAGE):
            raise
        raise UserError(f"Mask2Former needs {missing}, which is not installed: pip install {missing}") from error
    except BaseException:
        del sys.modules[name]
        raise
    return module


def has_cuda_op() -> bool:
    """Return whether the op ``MultiScaleDeformableAttention`` is compiled."""
    return CUDA_OP in sys.modules or importlib.util.find_spec(CUDA_OP) is not None


@contextlib.contextmanager
def _cuda_op() -> Iterator[None]:
    """Let an import of the compiled op find one of the same functions on ``cvplugins.ops`` where there is none.

    mask2former/modeling/pixel_decoder/ops/functions/ms_deform_attn_func.py raises without the op. Nothing else is
    imported in the meantime that asks for it, and the module is forgotten afterwards by all but that file.
    """
    if has_cuda_op():
        yield
        return
    sys.modules[CUDA_OP] = attention_module(CUDA_OP)
    try:
        yield
    finally:
        del sys.modules[CUDA_OP]


@contextlib.contextmanager
def _coco_eval() -> Iterator[None]:
    """Let an import find pycocotools' evaluation under the name of Detectron2's own, where that is not compiled.

    Detectron2 falls back to it too (detectron2/evaluation/coco_evaluation.py), mask2former/evaluation/
    instance_evaluation.py raises instead.
    """
    if importlib.util.find_spec(COMPILED) is not None:
        yield
        return
    from pycocotools.cocoeval import COCOeval

    stand_in = ModuleType(FAST_COCO_EVAL)
    stand_in.__dict__["COCOeval_opt"] = COCOeval
    sys.modules[FAST_COCO_EVAL] = stand_in
    try:
        yield
    finally:
        del sys.modules[FAST_COCO_EVAL]
