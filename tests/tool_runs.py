"""Run the tools as a user does, in processes of their own, and read what they print and write."""

import json
import os
import re
import socket
import subprocess
import sys
import textwrap

import fork_server
from fork_server import run_python

TINY = "tests/integration/tiny.py"  # a config
ENVIRONMENT = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def run(root, *command, fails=False):
    """Run a command in the project's folder, and return what it prints; a Python file with the frameworks imported."""
    return printed(start(root, *command), fails)


def start(root, *command, anew=False):
    """Run a command in the project's folder; a Python file with the frameworks imported, or ``anew`` without."""
    command = list(map(str, command))
    if command[0].endswith(".py") and not anew:
        return run_python(command, root, [ENVIRONMENT], 570)[0]
    command = [sys.executable if command[0].endswith(".py") else "bash", *command]
    return subprocess.run(command, cwd=root, env=ENVIRONMENT, capture_output=True, text=True, timeout=570)


def run_on_ranks(root, world_size, *command):
    """Run a tool as torchrun does, and return what each rank prints."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    sizes = {"WORLD_SIZE": str(world_size), "LOCAL_WORLD_SIZE": str(world_size)}
    ranks = [
        {**ENVIRONMENT, **meeting, **sizes, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(world_size)
    ]
    return [printed(each) for each in run_python([*map(str, command), "--launcher", "pytorch"], root, ranks, 570)]


def run_code(root, code):
    """Run Python code in a process that has imported the frameworks and no adapter of ours; return what it prints."""
    return printed(run_python(["-c", textwrap.dedent(code)], root, [ENVIRONMENT], 570)[0])


def run_until(root, pattern, *command):
    """Run a Python file with the frameworks imported until it has printed what ``pattern`` finds; then kill it."""
    return fork_server.run_until(pattern, list(map(str, command)), root, ENVIRONMENT, 570)


def printed(finished, fails=False):
    assert (finished.returncode != 0) == fails, finished.stdout[-3000:] + finished.stderr[-5000:]
    return finished.stdout


def summary(output):
    """Return the lines at the end of a run: metrics as printed, and paths."""
    lines = [line.split(maxsplit=1) for line in output.splitlines() if re.match(r"^[a-zA-Z_0-9/]+ +\S+$", line)]
    return {line[0]: line[1] for line in lines}


def printed_metrics(output):
    found = {name: value for name, value in summary(output).items() if name.startswith("bbox/")}
    assert "bbox/AP50" in found
    return found


def logged_losses(work_dir):
    """Return the loss of each iteration, the newest run last and counting."""
    losses = {}
    for path in sorted(work_dir.glob("*/vis_data/*.json")):
        if path.name == "config.py":
            continue
        for line in path.read_text().splitlines():
            values = json.loads(line)
            if "loss" in values:
                losses[values["iter"]] = {
                    name: value for name, value in values.items() if "loss" in name or name == "acc"
                }
    return losses
