"""Configs by name. Oracles: the files of the folder configs; and both loaders on the path itself."""

import subprocess
import sys

import pytest

import cvplugins
from cvplugins.config_files import check_syntax, config_names, find_config
from cvplugins.errors import UserError


def test_every_config_has_a_name(root):
    files = {path for kind in ("py", "yaml") for path in (root / "configs").rglob(f"*.{kind}")}
    bases = {path for path in files if path.parent.name == "_base_"}
    assert set(config_names().values()) == files - bases
    assert len(bases) == 2
    for name, path in config_names().items():
        assert find_config(name) == find_config(name + path.suffix) == path
        assert cvplugins.config_path(name) == str(path)


def test_a_path_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("voc_faster_rcnn", "voc_faster_rcnn.py"):
        (tmp_path / name).touch()
        assert find_config(name).absolute() == tmp_path / name


def test_a_folder_is_searched_first(root):
    ours = root / "configs"
    assert find_config("voc_faster_rcnn_sample", "detectron2") == ours / "detectron2" / "voc_faster_rcnn_sample.yaml"
    assert find_config("voc_faster_rcnn_sample.py", "detectron2") == ours / "voc_faster_rcnn_sample.py"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("voc_faster_rcnn_sampel", "voc_faster_rcnn_sampel does not exist; did you mean voc_faster_rcnn_sample?"),
        ("voc_faster_rcnn_R_50_FPN", "did you mean detectron2/voc_faster_rcnn_R_50_FPN?"),
        ("voc_faster_rcnn_sample.yaml", "did you mean detectron2/voc_faster_rcnn_sample or voc_faster_rcnn_sample?"),
        ("configs/ade20k_mask2former_r50.py", "did you mean ade20k_mask2former_r50?"),
        ("mine/here.py", "config mine/here.py does not exist; did you mean mine/there.py?"),
        ("xyz", "config xyz does not exist; there are ade20k_mask2former_r50, "),
    ],
)
def test_what_does_not_exist_is_answered_with_the_closest(tmp_path, monkeypatch, given, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "there.py").touch()
    with pytest.raises(UserError) as caught:
        find_config(given)
    assert message in str(caught.value)


def test_the_syntax_of_a_config_is_checked_without_running_it(tmp_path):
    path = tmp_path / "config.py"
    path.write_text("raise RuntimeError\n")
    check_syntax(path)
    path.write_text("a = 1\nb = = 2\n")
    with pytest.raises(UserError, match=r"config\.py, line 2: invalid syntax: b = = 2"):
        check_syntax(path)
    path.write_bytes(b"a = 1\0")
    with pytest.raises(UserError, match=r"config\.py: source code string cannot contain null bytes$"):
        check_syntax(path)


@pytest.mark.openmmlab
@pytest.mark.parametrize("name", ["voc_faster_rcnn", "ade20k_mask2former_r50"])
def test_a_config_inherits_by_name_with_mmengine_alone(tmp_path, name):
    """As in upstream's ``tools/train.py``: a process that has imported nothing of ours. Oracle: our loader."""
    from cvplugins.openmmlab.run.config import load_config

    path = tmp_path / "mine.py"
    path.write_text(f"_base_ = __import__('cvplugins').config_path({name!r})\ntrain_dataloader = dict(batch_size=7)\n")
    code = f"""
import sys
from mmengine.config import Config
assert not [name for name in sys.modules if name.startswith("cvplugins")]
Config.fromfile({str(path)!r}).dump({str(tmp_path / "resolved.py")!r})
"""
    finished = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr
    found, expected = load_config(tmp_path / "resolved.py"), load_config(name, {"train_dataloader.batch_size": 7})
    assert found.to_dict() == expected.to_dict()


def test_a_base_in_the_form_of_yaml_is_answered_with_that_of_python(tmp_path):
    from cvplugins.config_bases import check_bases

    path = tmp_path / "own.py"
    path.write_text("_base_ = ['cvplugins::voc_faster_rcnn_sample.py']\n")
    with pytest.raises(
        UserError, match=r'write _base_ = __import__\("cvplugins"\).config_path\("voc_faster_rcnn_sample"\)'
    ):
        check_bases(path)
