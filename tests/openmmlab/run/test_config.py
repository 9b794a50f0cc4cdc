"""Configs: read, changed by the command line, and refused with one clear line."""

import pytest

pytestmark = pytest.mark.openmmlab


@pytest.fixture
def load(tmp_path):
    from cvplugins.openmmlab.run.config import load_config

    def _load(text, options=None):
        path = tmp_path / "config.py"
        path.write_text(text)
        return load_config(path, options)

    return _load


@pytest.fixture
def refused(load):
    from cvplugins.errors import UserError

    def _refused(text, match, options=None):
        with pytest.raises(UserError, match=match) as caught:
            load(text, options)
        assert "\n" not in str(caught.value)

    return _refused


def test_missing_file_names_the_closest(tmp_path):
    from cvplugins.errors import UserError
    from cvplugins.openmmlab.run.config import load_config

    (tmp_path / "voc_faster_rcnn.py").write_text("")
    with pytest.raises(UserError, match=r"voc_faster_rcn.py does not exist; did you mean .*voc_faster_rcnn.py\?"):
        load_config(tmp_path / "voc_faster_rcn.py")
    with pytest.raises(UserError, match=r"x.py does not exist$"):
        load_config(tmp_path / "absent" / "x.py")
    with pytest.raises(UserError, match="is a folder; give a file in it"):
        load_config(tmp_path)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("model = dict(\n", r"config.py, line 1: '\(' was never closed"),
        ("a = 1\nb = = 2\n", r"config .*config.py, line 2: invalid syntax: b = = 2"),
        ("_base_ = './absent.py'\n", r"config.py: its base .*absent.py does not exist"),
        ("_base_ = 'mmdet::pascal_voc/absent.py'\n", r"config.py cannot be read: .*absent.py"),
        ("_base_ = 'nopackage::folder/absent.py'\n", r"config.py.*nopackage"),
        ("import nopackage\n", r"config.py.*nopackage"),
        ("a = 1 / 0\n", r"config.py cannot be read: ZeroDivisionError: division by zero"),
    ],
)
def test_broken_file_is_named(refused, text, match):
    refused(text, match)


def test_broken_base_is_named(refused, tmp_path):
    (tmp_path / "base.py").write_text("a = )\n")
    refused("_base_ = './base.py'\n", r"a base of config .*config.py, line 1: unmatched '\)': a = \)")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("hooks = [dict(type='cvplugins.GradientHealtHook')]", "did you mean GradientHealthHook"),
        ("model = dict(heads=[dict(loss=dict(type='cvplugins.FocalLos'))])", "did you mean FocalLoss"),
        ("model = dict(type='cvplugins.Zzzz')", "there are: .*FocalLoss, .*VOCDetectionMetric"),
    ],
)
def test_unknown_plugin_is_answered_with_the_closest(refused, text, match):
    refused(text, match)


def test_options_change_the_config(load):
    config = load("a = dict(b=1, c=[dict(d=1)])", {"a.b": 2, "a.c.0.d": 3})
    assert config.a == {"b": 2, "c": [{"d": 3}]}


@pytest.mark.parametrize("options", [{"a.b.c": 1}, {"a.c.7.d": 1}])
def test_options_that_do_not_fit_are_refused(refused, options):
    refused("a = dict(b=1, c=[dict(d=1)])", "--cfg-options do not fit config", options)


def test_data_root_moves_every_dataset_that_lies_there(load):
    text = (
        "data_root = 'data/VOC/'\n"
        "train = dict(dataset=dict(datasets=[dict(data_root=data_root), dict(data_root='elsewhere/')]))\n"
        "val = dict(dataset=dict(data_root=data_root))\n"
    )
    text += "evaluator = dict(ann_file=data_root + 'annotations/val.json', other='data/VOC2/x')\n"
    config = load(text, {"data_root": "real"})
    assert config.data_root == "real"
    assert config.evaluator == {"ann_file": "real/annotations/val.json", "other": "data/VOC2/x"}
    assert [each.data_root for each in config.train.dataset.datasets] == ["real", "elsewhere/"]
    assert config.val.dataset.data_root == "real"


def test_data_root_without_effect_is_refused(refused):
    refused("data_root = 'a'\nval = dict(data_root='b')", "data_root: no dataset of this config", {"data_root": "real"})
