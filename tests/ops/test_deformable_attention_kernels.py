"""The Triton kernels: their numbers in Triton's interpreter, their code for two GPUs, and both on a GPU."""

import os
import subprocess
import sys

import pytest
import torch
from ops.deformable_attention_cases import arguments, output_and_gradients
from ops.deformable_attention_checks import TOLERANCE, assert_same

from cvplugins.ops import deformable_attention, deformable_attention_torch
from cvplugins.ops.deformable_attention import multi_scale_deformable_attention

# Pixel decoder of Mask2Former at a crop of 256: heads of 32 channels, 4 points.
MASK2FORMER = (2, ((8, 8), (16, 16), (32, 32)), 8, 32, 1344, 4)


@pytest.mark.slow
def test_in_the_interpreter(root):
    """A process of its own: Triton reads the variable when it is imported. Oracles: see the file that is run."""
    pytest.importorskip("triton")
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "tests/ops/interpreted_deformable_attention.py",
        ],
        cwd=root,
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-2000:]
    assert "passed" in run.stdout


TRITON_TYPES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}


def compiled(kernel, dtype, capability, options, warps, channels=32, points=4):
    """Return what Triton makes of a kernel for a GPU, which need not be there."""
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    number = f"*{TRITON_TYPES[dtype]}"
    types = {name: number for name in kernel.arg_names if name.endswith("_ptr")}
    types |= {"shapes_ptr": "*i64", "starts_ptr": "*i64", "num_pixels": "i32", "num_queries": "i32"}
    if "grad_value_ptr" in types:
        types["grad_value_ptr"] = "*fp32"
    constants = {
        "HEADS": 8,
        "CHANNELS": channels,
        "LEVELS": 3,
        "POINTS": points,
        "ACCUMULATED": triton.language.float32,
        "PADDED": triton.next_power_of_2(max(channels, 2 * points, 4)),
        **options,
    }
    source = ASTSource(
        kernel,
        {name: types.get(name, "constexpr") for name in kernel.arg_names},
        {(index,): constants[name] for index, name in enumerate(kernel.arg_names) if name in constants},
        {(index,): [["tt.divisibility", 16]] for index, name in enumerate(kernel.arg_names) if name.endswith("_ptr")},
    )
    target = GPUTarget("cuda", capability, 32)
    return triton.compile(source, target=target, options={"num_warps": warps, "num_stages": 1})


@pytest.mark.slow
@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter compiles nothing")
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("dtype", TRITON_TYPES, ids=str)
def test_code_for_a_gpu(dtype, capability, monkeypatch, tmp_path):
    """Compiled to machine code by ptxas, which comes with Triton; what a CPU can say of its speed is asserted too."""
    pytest.importorskip("triton")
    from cvplugins.ops import deformable_attention_kernels as kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    for kernel in (kernels.forward_kernel, kernels.backward_kernel):
        options, warps = kernels.options_of(kernel, 32, 4, adds_vectors=capability >= 90)[0]
        code = compiled(kernel, dtype, capability, options, warps)
        assert code.asm["cubin"][:4] == b"\x7fELF"
        # Nothing is moved between threads by way of shared memory, which would make all warps wait.
        assert code.metadata.shared == 0
        ptx = code.asm["ptx"]
        assert "bar.sync" not in ptx
        additions = {word.partition(".")[2] for word in ptx.split() if word.startswith(("atom.", "red."))}
        vector = "v4.f32" if capability >= 90 else "f32"
        is_backward = kernel is kernels.backward_kernel
        assert additions == ({f"global.gpu.relaxed.add.{vector}"} if is_backward else set())


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_on_a_gpu(dtype):
    """Oracle: torch in float64 on the CPU, with the arguments as they are rounded."""
    args = arguments(MASK2FORMER, dtype)
    assert deformable_attention._kernels(args[0].cuda()) is not None, "Triton does not start: see the log"
    found, gradients, _ = output_and_gradients(multi_scale_deformable_attention, [each.cuda() for each in args])
    exact = [each.double() if each.is_floating_point() else each for each in args]
    expected, expected_gradients, _ = output_and_gradients(multi_scale_deformable_attention, exact)
    for each, other in zip((found, *gradients), (expected, *expected_gradients), strict=True):
        assert each.dtype == dtype
        assert_same(each.cpu(), other, TOLERANCE[dtype])


@pytest.mark.gpu
def test_on_a_gpu_torch_computes_the_same():
    args = [each.cuda() for each in arguments(MASK2FORMER, torch.float32)]
    found, gradients, outer = output_and_gradients(multi_scale_deformable_attention, args)
    expected = deformable_attention_torch.forward(*args)
    expected_gradients = deformable_attention_torch.backward(outer.float().cuda(), *args)
    for each, other in zip((found, *gradients), (expected, *expected_gradients), strict=True):
        assert_same(each, other, TOLERANCE[torch.float32])


@pytest.mark.gpu
def test_on_a_gpu_deterministic_mode_repeats_itself():
    """Oracle: the first of two runs."""
    args = [each.cuda() for each in arguments(MASK2FORMER, torch.float32)]
    torch.use_deterministic_algorithms(True)
    try:
        runs = [output_and_gradients(multi_scale_deformable_attention, args)[1] for _ in range(2)]
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(each, other) for each, other in zip(*runs, strict=True))


@pytest.mark.gpu
def test_on_a_gpu_nothing_waits_for_the_device():
    """Oracle: torch's own detector of synchronisation, after the first call, which compiles and tries options."""
    args = [each.cuda() for each in arguments(MASK2FORMER, torch.float32)]
    multi_scale_deformable_attention(*args)
    outer = torch.ones(2, 1344, 256, device="cuda")
    deformable_attention.deformable_attention_backward(outer, *args)
    torch.cuda.set_sync_debug_mode("error")
    try:
        multi_scale_deformable_attention(*args)
        deformable_attention.deformable_attention_backward(outer, *args)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
def test_on_a_gpu_the_compiler_takes_it_whole():
    args = [each.cuda() for each in arguments(MASK2FORMER, torch.float32)]
    compiled_attention = torch.compile(multi_scale_deformable_attention, fullgraph=True)
    found = output_and_gradients(compiled_attention, args)
    expected = output_and_gradients(multi_scale_deformable_attention, args)
    for each, other in zip((found[0], *found[1]), (expected[0], *expected[1]), strict=True):
        assert_same(each, other, TOLERANCE[torch.float32])
