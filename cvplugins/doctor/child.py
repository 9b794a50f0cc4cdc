"""Run in a process of its own: import packages one by one, and write down how each went, before the next begins.

Python's library alone: this file is started by its path, however broken the packages are.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import sys
import threading
import time
from typing import Any, TextIO


class BrokenModules:
    """Let what failed once fail at once again, by its name: a second try would end in a misleading error."""

    def __init__(self, names: list[str]) -> None:
        self.names = set(names)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """Raise for a broken module; leave all others to Python."""
        if name in self.names:
            raise ImportError(f"{name} cannot be imported", name=name)


class Watchdog:
    """End the process after some seconds without progress; as long as modules are loaded, a machine is only slow.

    The end comes from faulthandler, which needs no lock of the interpreter, so that compiled code cannot hold it up.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        faulthandler.dump_traceback_later(self.limit, exit=True)
        self.thread.start()

    def __exit__(self, *error: object) -> None:
        self.over.set()
        self.thread.join()
        faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        loaded = len(sys.modules)
        while not self.over.wait(0.5):
            if len(sys.modules) != loaded:
                loaded = len(sys.modules)
                faulthandler.dump_traceback_later(self.limit, exit=True)  # takes the place of the one before


def main() -> None:
    """Read the request from standard input, and append one line of JSON before and after each probe."""
    request = json.load(sys.stdin)
    sys.path[:] = request["path"]
    broken = BrokenModules(request["broken"])
    sys.meta_path.insert(0, broken)
    faulthandler.enable()
    with open(request["out"], "a", encoding="utf-8", buffering=1) as out:
        for probe in request["probes"]:
            with Watchdog(probe["limit"]):
                outcome = attempt(probe, broken, out)
            out.write(json.dumps({"name": probe["name"], **outcome}) + "\n")
    # Some libraries crash or wait when Python takes them down; all is said.
    os._exit(0)


def attempt(probe: dict[str, Any], broken: BrokenModules, out: TextIO) -> dict[str, Any]:
    """Import a probe's modules and ask its question; say in ``out`` what begins."""
    begin, module = time.perf_counter(), ""
    try:
        for module in probe["modules"]:
            announce(out, probe, module)
            importlib.import_module(module)
        module = ""
        announce(out, probe, module)
        answers = ask(probe["question"], probe["arguments"]) if probe["question"] else {}
        outcome: dict[str, Any] = {"state": "ok", "answers": answers}
    except (Exception, SystemExit) as error:
        outcome = describe(error, module, broken)
    return outcome | {"seconds": round(time.perf_counter() - begin, 2)}


def announce(out: TextIO, probe: dict[str, Any], module: str) -> None:
    """Write what is true if nothing follows."""
    out.write(json.dumps({"name": probe["name"], "state": "died", "module": module}) + "\n")


def ask(question: str, arguments: list[str]) -> Any:
    """Call ``"module:function"``."""
    module, _, function = question.partition(":")
    return getattr(importlib.import_module(module), function)(*arguments)


def describe(error: BaseException, module: str, broken: BrokenModules) -> dict[str, Any]:
    """Return what an error says, and whose fault it is."""
    name = getattr(error, "name", None) or ""
    needs = name if isinstance(error, ImportError) and name in broken.names else ""
    missing = name if isinstance(error, ModuleNotFoundError) and not needs else ""
    is_absent = bool(missing) and missing == module.partition(".")[0]
    if module and not is_absent:
        broken.names.add(module)
    return {
        "state": "missing" if is_absent else "raised",
        "error": str(error).strip() or type(error).__name__,
        "type": type(error).__name__,
        "module": module,
        "missing": missing,
        "needs": needs,
    }


if __name__ == "__main__":
    main()
