"""What runs on the GPU machine, in which order, and how long each may take."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["BENCHMARKS", "SECONDS", "Benchmark", "gpu_test_files"]

SECONDS = 480.0
TESTS_SECONDS, NCCL_SECONDS = 180.0, 60.0


@dataclass(frozen=True)
class Benchmark:
    """A script in benchmarks/ with GPU rows.

    Args:
        name: In the table.
        measured: What it measures, in a few words.
        command: Script and options.
        most: Seconds after which it is ended.
        least: Seconds without which it is not started.
        modules: What it imports beside torch and cvplugins.
    """

    name: str
    measured: str
    command: tuple[str, ...]
    most: float
    least: float
    modules: tuple[str, ...] = ()

    def exists(self, folder: Path) -> bool:
        """Return whether the script is there."""
        return (folder / self.command[0]).is_file()

    def line(self, folder: Path) -> list[str]:
        """Return the whole command line."""
        return [sys.executable, str(folder / self.command[0]), *self.command[1:]]


ON_GPU = ("--device", "cuda")
# The most telling first: what comes last is left out first.
BENCHMARKS = (
    Benchmark(
        "deformable attention",
        "Triton's kernel against torch",
        ("deformable_attention.py", *ON_GPU),
        60,
        15,
        ("triton",),
    ),
    Benchmark(
        "losses", "forward and backward against peers", ("losses.py", *ON_GPU, "--no-compile", "--rounds", "9"), 90, 15
    ),
    Benchmark("hooks", "share of a training iteration", ("hooks.py",), 90, 30, ("mmdet.datasets", "mmdet.models")),
    Benchmark("precise_bn", "recomputing statistics, ResNet-50", ("precise_bn.py", *ON_GPU), 30, 10, ("torchvision",)),
    Benchmark("fuse_conv_bn", "folding batch norms, ResNet-50", ("fuse_conv_bn.py", *ON_GPU), 30, 10, ("torchvision",)),
    Benchmark("many_classes", "sampled and adaptive softmax", ("many_classes.py", *ON_GPU), 40, 10),
    Benchmark(
        "losses, compiled",
        "the same with torch.compile",
        ("losses.py", *ON_GPU, "--only", "dice*", "--rounds", "9"),
        90,
        45,
    ),
)


def gpu_test_files(root: Path) -> list[Path]:
    """Return the test files that have a test marked gpu; the others need not even be importable there."""
    files = sorted(root.glob("tests/**/test_*.py"))
    return [file for file in files if "mark.gpu" in file.read_text(encoding="utf-8")]
