"""A process that holds a work dir."""

import json
import os
import signal
import time

from cvplugins.run_lock import NAME, locked


def owner(folder):
    """Fork a process that holds a folder until it is killed; return its number."""
    child = os.fork()
    if child == 0:
        try:
            with locked(folder):
                signal.pause()
        finally:
            os._exit(1)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if json.loads((folder / NAME).read_text())["process"] == child:
                return child
        except (FileNotFoundError, ValueError):
            time.sleep(0.01)
    raise AssertionError("the owner did not begin")


def end(child):
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
