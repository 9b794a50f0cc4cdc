"""mmcv's operators without compiling against the recorded results of a compiled mmcv, values and gradients."""

import numpy as np
import pytest
from ops.cases import REFERENCE, all_cases, load_reference, run

pytestmark = pytest.mark.openmmlab


@pytest.mark.parametrize("case", all_cases(), ids=str)
def test_results_equal_those_of_a_compiled_mmcv(case):
    record = load_reference(case.operator)
    again = f"run PYTHON_WITH_COMPILED_MMCV tests/ops/record_reference.py {case.operator}"
    assert record.get(f"{case.name}/inputs", np.array([])).tolist() == case.digest().tolist(), again
    result = run(case)
    expected = {name: array for name, array in record.items() if name.rsplit("/", 1)[0] == case.name}
    del expected[f"{case.name}/inputs"]
    assert set(result) == set(expected), again
    for name, array in expected.items():
        assert result[name].dtype == array.dtype, name
        np.testing.assert_allclose(result[name], array, rtol=case.rtol, atol=case.atol, err_msg=name)


def test_records_are_small():
    assert 0 < sum(path.stat().st_size for path in REFERENCE.glob("*.npz")) < 300_000
