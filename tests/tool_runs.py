"""Run the tools as a user does, in processes of their own, and read what they print and write."""

import json
import os
import re
import subprocess
import sys

TINY = "tests/integration/tiny.py"  # a config
ENVIRONMENT = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def run(root, *command, fails=False):
    """Run a command in the project's folder; a Python file in this interpreter."""
    interpreter = [sys.executable] if str(command[0]).endswith(".py") else ["bash"]
    finished = subprocess.run(
        [*interpreter, *map(str, command)], cwd=root, env=ENVIRONMENT, capture_output=True, text=True, timeout=570
    )
    assert (finished.returncode != 0) == fails, finished.stdout[-3000:] + finished.stderr[-5000:]
    return finished.stdout


def summary(output):
    """Return the lines at the end of a run: metrics as printed, and paths."""
    lines = [line.split(maxsplit=1) for line in output.splitlines() if re.match(r"^[a-zA-Z_0-9/]+ +\S+$", line)]
    return {line[0]: line[1] for line in lines}


def printed_metrics(output):
    found = {name: value for name, value in summary(output).items() if name.startswith("voc/")}
    assert "voc/AP50" in found
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
