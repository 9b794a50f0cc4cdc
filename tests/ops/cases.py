"""Calls of mmcv's operators whose results a compiled mmcv has recorded.

A module ``cases_*.py`` in this folder holds ``CASES``, a list of :class:`Case`. ``record_reference.py`` runs them with
a compiled mmcv and writes ``reference/<operator>.npz``; ``test_reference.py`` runs them with ours and compares.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

FOLDER = Path(__file__).parent
REFERENCE = FOLDER / "reference"


@dataclass(frozen=True)
class Case:
    """One call of a public function or module of mmcv.ops.

    Args:
        operator: File of the record: ``reference/<operator>.npz``.
        name: What is special about the call; unique for the operator.
        inputs: Arrays by name, made with ``np.random.RandomState``, whose numbers no version of NumPy changes.
        call: Takes the inputs as tensors by name; imports mmcv where it uses it; returns a tensor or a tuple of them.
        differentiable: The inputs whose gradients are compared too.
        rtol: Relative tolerance of ours against the record; 0 with ``atol`` 0 asks for equal bits.
        atol: Absolute tolerance.
    """

    operator: str
    name: str
    inputs: dict[str, np.ndarray]
    call: Callable[..., Any]
    differentiable: tuple[str, ...] = ()
    rtol: float = 1e-5
    atol: float = 1e-6

    def __str__(self) -> str:
        return f"{self.operator}-{self.name}"

    def digest(self) -> np.ndarray:
        """Return a checksum of the inputs: a record belongs to them."""
        found = hashlib.sha256()
        for name, array in sorted(self.inputs.items()):
            found.update(f"{name} {array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
        return np.frombuffer(found.digest()[:8], dtype=np.uint8)


def all_cases() -> list[Case]:
    """Return the cases of every module ``cases_*.py`` in this folder."""
    modules = [importlib.import_module(f"ops.{path.stem}") for path in sorted(FOLDER.glob("cases_*.py"))]
    cases = [case for module in modules for case in module.CASES]
    names = [str(case) for case in cases]
    if len(set(names)) != len(names):
        raise ValueError(f"two cases have the same name: {sorted(name for name in names if names.count(name) > 1)}")
    return cases


def run(case: Case) -> dict[str, np.ndarray]:
    """Return what a case gives, by ``<case>/out<index>`` and ``<case>/grad_<input>``.

    Gradients are those of a weighted sum of the outputs, with random weights.
    """
    tensors = {name: torch.from_numpy(array.copy()) for name, array in case.inputs.items()}
    for name in case.differentiable:
        tensors[name].requires_grad_()
    outputs = case.call(**tensors)
    outputs = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
    result = {f"{case.name}/out{index}": output.detach().numpy() for index, output in enumerate(outputs)}
    if case.differentiable:
        weights = np.random.RandomState(len(case.name))
        learnt = [output for output in outputs if output.requires_grad]
        total = sum((output * torch.from_numpy(weights.randn(*output.shape)).to(output)).sum() for output in learnt)
        total.backward()
        result |= {f"{case.name}/grad_{name}": tensors[name].grad.numpy() for name in case.differentiable}
    return result


def load_reference(operator: str) -> dict[str, np.ndarray]:
    """Return the arrays of an operator's record."""
    with np.load(REFERENCE / f"{operator}.npz") as record:
        return dict(record)
