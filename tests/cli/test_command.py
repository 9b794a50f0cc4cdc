"""The console command. Oracles: what its contract says of every subcommand, and the modules of a process."""

import importlib
import importlib.metadata
import json
import os
import resource
import runpy
import subprocess
import sys

import pytest

import cvplugins
from cvplugins.cli import COMMANDS, main

HEAVY = ("torch", "numpy", "scipy", "PIL", "matplotlib", "yaml", "mmengine", "mmcv", "mmdet", "mmseg", "detectron2")


def module(name):
    return importlib.import_module(f"cvplugins.cli.{name.replace('-', '_')}")


def python(*arguments, cwd):
    return subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, timeout=120)


def refusal(capsys, *arguments):
    """Return the last line of what the parser prints when it refuses."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_the_table_names_every_subcommand():
    assert COMMANDS == ("train", "test", "evaluate", "data", "convert-weights", "replay", "sample", "doctor")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_subcommand_has_a_help_that_shows_an_example(name, capsys):
    first, _, rest = module(name).__doc__.partition("\n")
    assert first.endswith(".")
    assert f"cvplugins {name}" in rest
    with pytest.raises(SystemExit) as caught:
        main([name, "--help"])
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"usage: cvplugins {name} ")
    assert all(line in printed for line in rest.strip().splitlines())
    with pytest.raises(SystemExit) as caught:
        main([name, "--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"cvplugins {cvplugins.__version__}\n"


def test_the_help_lists_every_subcommand_and_is_what_one_gets_without_any(capsys):
    assert main([]) == 0
    printed = capsys.readouterr().out
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert (caught.value.code, capsys.readouterr().out) == (0, printed)
    for name in COMMANDS:
        assert f"{name} " in printed
        assert module(name).__doc__.splitlines()[0] in printed
    assert "\n  cvplugins train voc_faster_rcnn_sample " in printed
    assert max(map(len, printed.splitlines())) <= 120


def test_the_version_is_that_of_the_distribution(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.split() == ["cvplugins", importlib.metadata.version("cvplugins")]


def test_importing_any_module_of_it_imports_nothing_heavy(tmp_path):
    names = ["cvplugins.cli", "cvplugins.cli.frameworks", *(module(name).__name__ for name in COMMANDS)]
    code = f"""
import importlib, json, sys
for name in {names}:
    importlib.import_module(name)
print(json.dumps([name for name in {HEAVY} if name in sys.modules]))
"""
    finished = python("-c", code, cwd=tmp_path)
    assert json.loads(finished.stdout) == [], finished.stderr


def test_the_help_takes_less_than_a_third_of_a_second(tmp_path):
    """In processor time, which other work on the machine does not stretch much; the least of three."""
    taken = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        finished = python("-m", "cvplugins", "--help", cwd=tmp_path)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert (finished.returncode, finished.stdout[:6]) == (0, "usage:")
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(taken) < 0.3


def test_a_misspelt_command_or_option_is_answered_with_the_one_that_was_meant(capsys):
    assert "there is no command 'trian'; did you mean train?" in refusal(capsys, "trian")
    assert "there is no command 'xyz'; there are train, test, " in refusal(capsys, "xyz")
    assert refusal(capsys, "--versoin").endswith("there is no --versoin: did you mean --version?")
    assert refusal(capsys, "train", "x.py", "--workdir=a").endswith("there is no --workdir: did you mean --work-dir?")
    # The option is required, so that argparse complains of its absence.
    meant = refusal(capsys, "evaluate", "a.json", "--anotations", "b.json")
    assert meant.endswith("there is no --anotations: did you mean --annotations?")
    assert refusal(capsys, "train", "x.py", "--zzzzzz").endswith("unrecognized arguments: --zzzzzz")
    assert refusal(capsys, "train", "x.py", "--work", "a", "b").endswith("unrecognized arguments: b")  # --work-dir


SAMPLE = "voc_faster_rcnn_sample"
LONG = "a" * 300  # longer than names of files may be
MISTAKES = [
    (["train", "voc_faster_rcn"], "config voc_faster_rcn does not exist; did you mean voc_faster_rcnn?"),
    (["train", "voc_faster_rcnn_R_50_C4"], "did you mean detectron2/voc_faster_rcnn_R_50_C4?"),
    (["train", "broken.py"], "config broken.py, line 1: '(' was never closed"),
    (["train", SAMPLE, "--resume", "none.pth"], "checkpoint none.pth does not exist"),
    (["test", "none.py", "none.pth", "--out", "a.csv"], "config none.py does not exist"),
    (["test", SAMPLE, "none.pth", "--out", "a.csv"], "--out a.csv: use a name that ends in .json"),
    (["test", SAMPLE, "none.pth"], "checkpoint none.pth does not exist"),
    (["evaluate", "none.json", "--annotations", "broken.py"], "none.json: does not exist"),
    (["evaluate", "broken.py", "--annotations", "none"], "none: does not exist"),
    (["evaluate", "broken.py", "--annotations", ".", "--rules", "voc"], "no detection rule is called 'voc'; there are"),
    (["convert-weights", "a", "b", "--from", "mmdet", "--to", "mmdet"], "weights of mmdet need no conversion"),
    (["convert-weights", "a", "b", "--from", "mmdet", "--to", "detectron2"], "checkpoint a does not exist"),
    (["replay", "none.pt"], "replay file none.pt does not exist"),
    (["replay", "broken.py", "--config", "none"], "config none does not exist"),
    (["train", ""], "config . is a folder"),
    (["train", "folder.py"], "config folder.py is a folder"),
    (["train", "notes.txt"], "config notes.txt: its name must end in .py for OpenMMLab, or in .yaml for Detectron2"),
    (["train", LONG], "a does not exist; there are "),
    (["train", f"{LONG}/none.py"], "a/none.py does not exist\n"),
    (["test", SAMPLE, LONG], "a does not exist; give the path of a .pth file"),
    (["evaluate", LONG, "--annotations", "."], "a: does not exist"),
    (["replay", LONG], "a does not exist; NonFiniteGuardHook writes"),
    (["convert-weights", "https://a/b.pth", "c.pth", "--from", "mmdet", "--to", "detectron2"], "b.pth is an address"),
    (["convert-weights", "notes.txt", "folder.py", "--from", "mmdet", "--to", "detectron2"], "name that ends in .pth"),
    (["sample", "voc", "folder.py", "--force"], "folder.py exists; it is not a sample; choose another folder"),
    (["sample", "voc", "new", "--seed", "-1"], "--seed -1: expected a number from 0 to 4294967295"),
]


def test_mistakes_that_need_no_framework_are_found_before_one_is_imported(tmp_path):
    (tmp_path / "broken.py").write_text("model = dict(\n")
    (tmp_path / "notes.txt").touch()
    (tmp_path / "folder.py").mkdir()
    code = f"""
import contextlib, io, json, sys
from cvplugins.cli import main
answers = []
for arguments, _ in {MISTAKES}:
    with contextlib.redirect_stderr(io.StringIO()) as printed:
        code = main(arguments)
    answers.append((code, printed.getvalue()))
print(json.dumps([answers, [name for name in {HEAVY} if name in sys.modules]]))
"""
    finished = python("-c", code, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    answers, imported = json.loads(finished.stdout)
    assert imported == []
    for (arguments, message), (exit_code, printed) in zip(MISTAKES, answers, strict=True):
        assert (exit_code, printed.count("\n")) == (2, 1), arguments
        assert printed.startswith("error: ")
        assert message in printed
    assert sorted(os.listdir(tmp_path)) == ["broken.py", "folder.py", "notes.txt"]


@pytest.mark.openmmlab
@pytest.mark.parametrize("option", ["a", "=1"])
def test_options_without_a_key_or_value_are_found_before_a_framework_is_imported(tmp_path, option):
    code = f"""
import sys
from cvplugins.cli import main
print(main(["train", {SAMPLE!r}, "--cfg-options", {option!r}]), [name for name in {HEAVY} if name in sys.modules])
"""
    finished = python("-c", code, cwd=tmp_path)
    assert finished.stdout == "2 []\n", finished.stderr
    assert (
        finished.stderr == f"error: --cfg-options {option}: expected KEY=VALUE, such as train_dataloader.batch_size=4\n"
    )


def test_only_the_first_of_several_processes_prints_a_mistake(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    assert main(["train", "none.py"]) == 2
    assert capsys.readouterr().err == ""


def test_what_the_parsers_repeat_is_what_the_core_has():
    from cvplugins.cli import convert_weights, evaluate
    from cvplugins.metrics import DETECTION_RULES
    from cvplugins.samples.drawing import SAMPLES
    from cvplugins.samples.folders import FOLDERS
    from cvplugins.weights import FRAMEWORKS

    assert set(DETECTION_RULES) == set(evaluate.RULES)
    assert convert_weights.FRAMEWORKS == FRAMEWORKS
    assert tuple(SAMPLES) == tuple(FOLDERS)


@pytest.mark.parametrize("name", ["train", "test", "evaluate", "convert_weights", "replay"])
def test_a_tool_is_the_subcommand_under_its_own_name(root, name, monkeypatch, capsys):
    helps = []
    for call in (
        lambda: runpy.run_path(str(root / "tools" / f"{name}.py"), run_name="__main__"),
        lambda: main([name.replace("_", "-"), "--help"]),
    ):
        monkeypatch.setattr(sys, "argv", [f"tools/{name}.py", "--help"])
        with pytest.raises(SystemExit) as caught:
            call()
        assert caught.value.code == 0
        helps.append(capsys.readouterr().out)
    assert helps[0].startswith(f"usage: {name}.py ")
    tool, command = (text[text.index("positional arguments:") :].split() for text in helps)
    assert tool == command[: len(tool)]


def test_python_m_is_the_command(tmp_path):
    finished = python("-m", "cvplugins", "trian", cwd=tmp_path)
    assert finished.returncode == 2
    assert "cvplugins: error: there is no command 'trian'; did you mean train?" in finished.stderr
    assert os.listdir(tmp_path) == []


def test_a_reader_that_has_enough_ends_a_command_without_a_trace(tmp_path):
    """The oracle is what `head` does: it closes its end of the pipe before anything is written."""
    process = subprocess.Popen(
        [sys.executable, "-m", "cvplugins", "sample", "voc", str(tmp_path / "kit")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 1


def test_a_traceback_is_printed_where_it_is_asked_for(capsys):
    assert main(["train", "none.py", "--traceback"]) == 2
    printed = capsys.readouterr().err
    assert "in find_config" in printed
    assert printed.splitlines()[-1].startswith("error: config none.py does not exist")
