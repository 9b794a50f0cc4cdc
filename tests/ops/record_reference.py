"""Record what a compiled mmcv gives for the cases of this folder.

``PYTHON_WITH_COMPILED_MMCV tests/ops/record_reference.py [OPERATOR ...]`` writes ``tests/ops/reference/<operator>.npz``
for the named operators, all if none is named. These files are committed, so that tests compare without compiling.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the package "ops" of the tests, as pytest sees it

from ops.cases import REFERENCE, all_cases, run


def main() -> None:
    extension = import_module("mmcv._ext").__file__
    if not extension.endswith(tuple(EXTENSION_SUFFIXES)):
        raise SystemExit(f"{extension} is not a compiled mmcv: run this with a Python that has one")
    chosen = set(sys.argv[1:])
    records = defaultdict(dict)
    for case in all_cases():
        if not chosen or case.operator in chosen:
            records[case.operator] |= run(case) | {f"{case.name}/inputs": case.digest()}
    if unknown := chosen - set(records):
        raise SystemExit(f"no cases of {sorted(unknown)}; there are {sorted({case.operator for case in all_cases()})}")
    REFERENCE.mkdir(exist_ok=True)
    for operator, arrays in records.items():
        path = REFERENCE / f"{operator}.npz"
        np.savez_compressed(path, **arrays)
        print(f"{path.name}: {len(arrays)} arrays, {path.stat().st_size / 1000:.1f} kB")  # noqa: T201


if __name__ == "__main__":
    main()
