"""Multi-scale deformable attention as torch computes it, and what holds whatever computes it.

Oracles: see ``deformable_attention_checks``; for the rest each test names its own.
"""

import logging

import pytest
import torch
from ops.deformable_attention_cases import SIZES, arguments, formula, output_and_gradients
from ops.deformable_attention_checks import *  # noqa: F403 - its tests run here, with torch
from torch.utils._python_dispatch import TorchDispatchMode

from cvplugins.ops import deformable_attention
from cvplugins.ops.deformable_attention import multi_scale_deformable_attention


@pytest.mark.parametrize(
    ("position", "shape", "message"),
    [
        (0, (2, 26, 16), r"value is \(2, 26, 16\).*expected \(B, S, H, D\)"),
        (3, (2, 7, 2, 2, 2), r"sampling_locations \(2, 7, 2, 2, 2\)"),
        (3, (2, 7, 3, 2, 2, 2), "differ in batch or heads"),
        (4, (2, 7, 2, 4), r"attention_weights are \(2, 7, 2, 4\); expected \(2, 7, 2, 2, 2\)"),
        (1, (3, 2), r"spatial_shapes are \(3, 2\).*for the 2 levels"),
        (2, (3,), r"level_start_index \(3,\)"),
        (0, (2, 27, 2, 8), r"value has 27 pixels; spatial_shapes \[\[5, 4\], \[3, 2\]\] have 26"),
    ],
)
def test_arguments_that_do_not_fit_are_named(position, shape, message):
    args = list(arguments(SIZES["ordinary"]))
    args[position] = torch.zeros(shape, dtype=args[position].dtype)
    with pytest.raises(ValueError, match=message):
        multi_scale_deformable_attention(*args)


def test_arguments_on_two_devices_are_named():
    args = list(arguments(SIZES["ordinary"]))
    args[1] = args[1].to("meta")
    with pytest.raises(ValueError, match=r"spatial_shapes on meta.*expected one device"):
        multi_scale_deformable_attention(*args)


def test_nothing_but_the_arguments_is_kept():
    """Oracle: the storages of the arguments."""
    args = [each.requires_grad_() if each.is_floating_point() else each for each in arguments(SIZES["ordinary"])]
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        multi_scale_deformable_attention(*args)
    assert {each.data_ptr() for each in kept} == {each.data_ptr() for each in args}


def test_there_is_no_second_derivative():
    args = [each.requires_grad_() if each.is_floating_point() else each for each in arguments(SIZES["ordinary"])]
    outer = torch.ones(2, 7, 16, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(multi_scale_deformable_attention(*args), args[0], outer, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.square().sum().backward()


def test_the_compiler_takes_it_whole():
    """Oracle: the same without compiling; with fullgraph anything that the compiler can not take is an error."""
    args = arguments(SIZES["ordinary"])
    compiled = torch.compile(multi_scale_deformable_attention, fullgraph=True, backend="aot_eager")
    found, gradients, _ = output_and_gradients(compiled, args)
    expected, expected_gradients, _ = output_and_gradients(multi_scale_deformable_attention, args)
    for each, other in zip((found, *gradients), (expected, *expected_gradients), strict=True):
        assert torch.equal(each, other)


def test_autocast_changes_nothing():
    args = arguments(SIZES["ordinary"], torch.float32)
    expected = multi_scale_deformable_attention(*args)
    with torch.autocast("cpu", torch.bfloat16):
        found = multi_scale_deformable_attention(*args)
    assert torch.equal(found, expected)


class _Scalars(TorchDispatchMode):
    """Refuse what waits for a device: the value of a tensor as a number of Python."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func is not torch.ops.aten._local_scalar_dense.default, "a tensor was read as a number"
        return func(*args, **(kwargs or {}))


def test_torch_does_not_wait_for_the_device():
    args = arguments(SIZES["ordinary"])
    with _Scalars():
        output = deformable_attention.deformable_attention_torch.forward(*args)
        deformable_attention.deformable_attention_torch.backward(output, *args)


def test_in_deterministic_mode_torch_computes_the_gradients(monkeypatch):
    """Triton's atomic additions are not reproducible. Oracle: the results of torch, to the last bit."""
    args = arguments(SIZES["ordinary"])
    expected = output_and_gradients(multi_scale_deformable_attention, args)[1]

    class Kernels:
        forward = staticmethod(deformable_attention.deformable_attention_torch.forward)

    monkeypatch.setattr(deformable_attention, "_kernels", lambda value: Kernels)
    with pytest.raises(AttributeError, match="backward"):
        output_and_gradients(multi_scale_deformable_attention, args)
    torch.use_deterministic_algorithms(True)
    try:
        found = output_and_gradients(multi_scale_deformable_attention, args)[1]
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(each, other) for each, other in zip(found, expected, strict=True))


@pytest.fixture
def forget():
    """Let each test try Triton anew."""
    deformable_attention._loaded_kernels.cache_clear()
    yield
    deformable_attention._loaded_kernels.cache_clear()


@pytest.mark.usefixtures("forget")
def test_without_triton_a_message_says_so_once(monkeypatch, caplog):
    import sys

    monkeypatch.setitem(sys.modules, "triton", None)
    with caplog.at_level(logging.WARNING):
        assert [deformable_attention._loaded_kernels(0) for _ in range(3)] == [None] * 3
    (record,) = caplog.records
    assert "computed by torch" in record.message
    assert "pip install triton" in record.message


@pytest.mark.usefixtures("forget")
def test_an_old_triton_is_named(monkeypatch, caplog):
    triton = pytest.importorskip("triton")
    monkeypatch.setattr(triton, "__version__", "2.1.0")
    with caplog.at_level(logging.WARNING):
        assert deformable_attention._loaded_kernels(0) is None
    assert "triton is 2.1.0; it needs 3.0 or later" in caplog.text


@pytest.mark.usefixtures("forget")
def test_what_keeps_triton_from_starting_is_named(monkeypatch, caplog):
    pytest.importorskip("triton")
    from cvplugins.ops import deformable_attention_kernels

    def fail(device):
        raise RuntimeError("Failed to find C compiler.")

    monkeypatch.setattr(deformable_attention_kernels, "try_on", fail)
    with caplog.at_level(logging.WARNING):
        assert deformable_attention._loaded_kernels(0) is None
    assert "triton can not start (Failed to find C compiler.); it needs a C compiler" in caplog.text


@pytest.mark.openmmlab
def test_mmcv_calls_it():
    """mmcv's own Function, which its layer calls on a GPU. Oracle: its formula in torch."""
    from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction

    args = arguments(SIZES["ordinary"], torch.float32)
    found, gradients, _ = output_and_gradients(lambda *given: MultiScaleDeformableAttnFunction.apply(*given, 64), args)
    expected, expected_gradients, _ = output_and_gradients(formula, args)
    torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-5)
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-4)
