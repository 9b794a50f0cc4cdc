"""What the doctor reads of this machine, against the system's own tools; and control groups in a folder."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from cvplugins.doctor import read_machine
from cvplugins.doctor.machine import Gpu, _cgroup_folders, _core_limit, _gpus, _memory_limits


def test_this_machine():
    machine = read_machine({})
    assert machine.cores == len(os.sched_getaffinity(0))
    assert machine.cores_in_all == os.cpu_count()
    assert machine.disk_free == pytest.approx(shutil.disk_usage(".").free, rel=0.05)
    limit = subprocess.run(["bash", "-c", "ulimit -n"], capture_output=True, text=True, check=True).stdout.strip()
    assert str(machine.open_files) == limit
    with open("/proc/meminfo") as lines:
        assert machine.memory <= int(next(lines).split()[1]) * 1024
    assert 0 < machine.memory_free <= machine.memory


def test_a_compiler_that_the_environment_names_is_the_only_one(tmp_path):
    compiler = tmp_path / "mycc"
    compiler.write_text("#!/bin/sh\necho 'mycc (Test) 99.1.2 20260101'\n")
    compiler.chmod(0o755)
    machine = read_machine({"CC": f"{compiler} -O2", "CXX": "/bin/false"})
    assert (machine.c_compiler.path, machine.c_compiler.version) == (str(compiler), "99.1.2")
    assert (machine.compiler.path, machine.compiler.version) == ("/bin/false", "")


def test_nvcc_of_cuda_home(tmp_path):
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.parent.mkdir()
    # The first number with a point is not the release.
    nvcc.write_text("#!/bin/sh\necho 'Copyright 2005.2025'\necho 'Cuda compilation tools, release 13.0, V13.0.88'\n")
    nvcc.chmod(0o755)
    assert read_machine({"CUDA_HOME": str(tmp_path)}).cuda_compiler.version == "13.0"


def control_group(tmp_path, version, path, files):
    """Write a control group's files, and this process's membership in it; return its folders."""
    own = tmp_path / "own"
    own.write_text(f"0::{path}\n" if version == 2 else f"4:cpu,cpuacct:{path}\n3:memory:{path}\n")
    for name, text in files.items():
        file = tmp_path / "groups" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return lambda controller: _cgroup_folders(controller, tmp_path / "groups", own)


def test_limits_of_a_container_in_version_2(tmp_path):
    """The tightest limit of a group and of those around it holds."""
    files = {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "250000 100000\n", "a/b/memory.max": "1000\n"}
    folders = control_group(tmp_path, 2, "/a/b", files | {"a/b/memory.current": "300\n", "a/memory.max": "max\n"})
    assert _core_limit(folders("cpu")) == 2.5
    assert _memory_limits(folders("memory")) == [(1000, 300)]


def test_limits_of_a_container_in_version_1(tmp_path):
    files = {
        "cpu/docker/x/cpu.cfs_quota_us": "150000\n",
        "cpu/docker/x/cpu.cfs_period_us": "100000\n",
        "memory/docker/x/memory.limit_in_bytes": "2000\n",
        "memory/docker/x/memory.usage_in_bytes": "500\n",
        "memory/memory.limit_in_bytes": f"{2**63 - 4096}\n",  # no limit, as version 1 writes it
        "memory/memory.usage_in_bytes": "9000\n",
    }
    folders = control_group(tmp_path, 1, "/docker/x", files)
    assert _core_limit(folders("cpu")) == 1.5
    assert _memory_limits(folders("memory")) == [(2000, 500)]


def test_no_limits(tmp_path):
    folders = control_group(tmp_path, 2, "/", {"cpu.max": "max 100000\n"})
    assert _core_limit(folders("cpu")) is None
    assert _memory_limits(folders("memory")) == []


def test_what_nvidia_smi_prints():
    output = "580.65.06, NVIDIA H200, 143771\n580.65.06, NVIDIA H200, [N/A]\n"
    works, driver, gpus = _gpus(lambda command: output)
    assert (works, driver) == (True, "580.65.06")
    assert gpus == (Gpu("NVIDIA H200", 143771 * 2**20), Gpu("NVIDIA H200", 0))
    assert _gpus(lambda command: None) == (False, "", ())
    assert _gpus(lambda command: "No devices were found\n") == (False, "", ())
