"""CvpluginsCheckpointer against Detectron2's, on each kind of file."""

import os
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from cvplugins.errors import UserError

pytestmark = pytest.mark.detectron2


class Backbone(nn.Module):
    """With the names by which Caffe2's weights are found."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Module()
        self.stem.conv1 = nn.Conv2d(3, 4, 1, bias=False)
        self.fc1000 = nn.Linear(4, 2)


def checkpointer(*args, **options):
    pytest.importorskip("detectron2")
    from cvplugins.detectron2 import CvpluginsCheckpointer

    return CvpluginsCheckpointer(*args, **options)


def state_of(model):
    return {name: each.tolist() for name, each in model.state_dict().items()}


def arrays():
    generator = np.random.default_rng(0)
    return {
        "conv1_w": generator.normal(size=(4, 3, 1, 1)).astype(np.float32),
        "conv1_w_momentum": np.zeros((4, 3, 1, 1), np.float32),
        "pred_w": generator.normal(size=(2, 4)).astype(np.float32),
        "pred_b": generator.normal(size=2).astype(np.float32),
    }


def files(folder):
    weights = {"stem.conv1.weight": arrays()["conv1_w"], "fc1000.weight": arrays()["pred_w"]}
    tensors = {name: torch.from_numpy(each) for name, each in weights.items()}
    contents = {
        "zoo.pkl": {"model": weights, "__author__": "MSRA", "matching_heuristics": True},
        "caffe2.pkl": arrays(),
        "caffe2_detector.pkl": {"blobs": arrays()},
        "own.pth": {"model": tensors, "iteration": 7},
        "plain.pth": tensors,
        "pycls.pyth": {"model_state": {**tensors, "num_batches_tracked": torch.tensor(1)}},
    }
    for name, content in contents.items():
        if name.endswith(".pkl"):
            (folder / name).write_bytes(pickle.dumps(content, protocol=2))
        else:
            torch.save(content, folder / name)
    return contents


def test_every_kind_of_file_loads_as_in_detectron2(tmp_path):
    checkpoints = pytest.importorskip("detectron2.checkpoint")
    start = Backbone().state_dict()
    for name in files(tmp_path):
        ours, theirs = Backbone(), Backbone()
        ours.load_state_dict(start)
        theirs.load_state_dict(start)
        path = str(tmp_path / name) + ("?matching_heuristics=True" if name == "plain.pth" else "")
        beside = checkpointer(ours).load(path)
        assert beside == checkpoints.DetectionCheckpointer(theirs).load(path)
        assert state_of(ours) == state_of(theirs)
        assert ours.stem.conv1.weight.flatten().tolist() == arrays()["conv1_w"].flatten().tolist()


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harmed",)


@pytest.mark.parametrize("name", ["bad.pkl", "bad.pth", "bad.pyth"])
def test_code_in_a_file_runs_only_when_trusted(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    weights = {"stem.conv1.weight": torch.zeros(4, 3, 1, 1)}
    content = {"model": weights if name == "bad.pth" else {}, "model_state": weights, "__author__": Harmful()}
    (tmp_path / name).write_bytes(pickle.dumps(content)) if name == "bad.pkl" else torch.save(content, tmp_path / name)
    careful = checkpointer(Backbone())
    with pytest.raises(UserError, match=rf"{name} holds more than weights .* --trust-checkpoint"):
        careful.load(name)
    assert not (tmp_path / "harmed").exists()
    files(tmp_path)
    careful.load("own.pth")  # an error before does not spoil it
    checkpointer(Backbone(), trusted=True).load(name)
    assert (tmp_path / "harmed").is_dir()


def test_what_it_saves_it_resumes(tmp_path):
    model = Backbone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    sum(each.sum() for each in model.parameters()).backward()
    optimizer.step()
    saver = checkpointer(model, str(tmp_path), optimizer=optimizer)
    saver.save("model_0000004", iteration=4, best=np.float64(0.5))
    assert sorted(os.listdir(tmp_path)) == ["last_checkpoint", "model_0000004.pth"]
    other = Backbone()
    again = torch.optim.SGD(other.parameters(), lr=0.2)
    beside = checkpointer(other, str(tmp_path), optimizer=again).resume_or_load("", resume=True)
    assert (beside["iteration"], beside["best"]) == (4, 0.5)
    assert state_of(other) == state_of(model)
    assert again.param_groups[0]["lr"] == 0.1


def test_dying_while_saving_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    saver = checkpointer(Backbone(), str(tmp_path))
    saver.save("model_final", iteration=1)

    def dies(content, path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", dies)
        with pytest.raises(KeyboardInterrupt):
            saver.save("model_final", iteration=2)
    assert checkpointer(Backbone(), str(tmp_path)).resume_or_load("")["iteration"] == 1


def test_mistakes_are_named(tmp_path):
    torch.save({"weights": {}}, tmp_path / "a.pyth")
    with pytest.raises(UserError, match="there is no model_state"):
        checkpointer(Backbone()).load(str(tmp_path / "a.pyth"))
    with pytest.raises(UserError, match=r"checkpoint .*none.pkl does not exist"):
        checkpointer(Backbone()).load(str(tmp_path / "none.pkl"))
    assert checkpointer(Backbone()).load("") == {}
