"""Run a tool in this process, and read its answer to a mistake."""

import importlib.util
import sys

import pytest


@pytest.fixture
def tool(root, tmp_path, monkeypatch, capfd):
    """Run a tool; return its exit code, the last line of its output, and its error line."""
    monkeypatch.chdir(root)

    def _tool(name, *arguments):
        spec = importlib.util.spec_from_file_location(f"tool_{name}", root / "tools" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments), "--work-dir", str(tmp_path / "work")])
        code = module.main()
        printed = capfd.readouterr()
        errors = [line for line in printed.err.splitlines() if line.startswith("error: ")]
        return code, printed.out.strip().splitlines()[-1:], errors

    return _tool


@pytest.fixture
def refused(tool, tmp_path):
    """Run a tool that has to answer with one line that holds ``match``, exit code 2, and write nothing."""

    def _refused(match, name, *arguments):
        code, _, errors = tool(name, *arguments)
        assert code == 2
        assert len(errors) == 1
        for part in [match] if isinstance(match, str) else match:
            assert part in errors[0]
        assert not (tmp_path / "work").exists()

    return _refused
