"""The tool: checkpoint files of one framework into those of the other."""

import pickle
import runpy
import sys

import pytest
import torch

from cvplugins.errors import UserError
from cvplugins.weights import convert_checkpoint
from cvplugins.weights.faster_rcnn import parameter_names

MMDET = {mmdet: torch.full((2,), float(number)) for number, (mmdet, _) in enumerate(parameter_names(18))}
DETECTRON2 = {name: MMDET[mmdet].numpy() for mmdet, name in parameter_names(18)}


@pytest.fixture
def of_mmdet(tmp_path):
    path = tmp_path / "epoch_1.pth"
    torch.save({"meta": {"epoch": 1}, "state_dict": MMDET, "optimizer": {"lr": 0.1}}, path)
    return path


def load(path):
    return torch.load(path, weights_only=True)


def test_there_and_back(of_mmdet, tmp_path):
    there, back = tmp_path / "there.pth", tmp_path / "back.pth"
    summary = convert_checkpoint(of_mmdet, there, source="mmdet", target="detectron2")
    assert summary.startswith(f"wrote {there}: {len(MMDET)} weights and buffers")
    assert set(load(there)) == {"model", "__author__"}
    convert_checkpoint(there, back, source="detectron2", target="mmdet")
    assert set(load(back)) == {"state_dict", "meta"}
    assert {name: each.tolist() for name, each in load(back)["state_dict"].items()} == {
        name: each.tolist() for name, each in MMDET.items()
    }


def test_pickle_of_the_model_zoo(tmp_path):
    path = tmp_path / "model_final.pkl"
    path.write_bytes(pickle.dumps({"model": DETECTRON2, "__author__": "Detectron2 Model Zoo"}))
    convert_checkpoint(path, tmp_path / "mmdet.pth", source="detectron2", target="mmdet")
    assert torch.equal(
        load(tmp_path / "mmdet.pth")["state_dict"]["rpn_head.rpn_cls.bias"], MMDET["rpn_head.rpn_cls.bias"]
    )


@pytest.mark.openmmlab
def test_log_history_of_mmengine_is_passed_over(tmp_path):
    """Written by the real HistoryBuffer; opened with what stands for it."""
    history = pytest.importorskip("mmengine.logging.history_buffer").HistoryBuffer([1.0], [1])
    path = tmp_path / "epoch_1.pth"
    torch.save({"state_dict": MMDET, "message_hub": {"log_scalars": {"train/loss": history}}}, path)
    convert_checkpoint(path, tmp_path / "there.pth", source="mmdet", target="detectron2")
    assert len(load(tmp_path / "there.pth")["model"]) == len(MMDET)


class Harmful:
    def __reduce__(self):
        return print, ("code has run",)


def test_mistakes_are_named_and_nothing_is_written(of_mmdet, tmp_path, capsys):
    target = tmp_path / "out.pth"
    options = dict(source="mmdet", target="detectron2")
    with pytest.raises(UserError, match=r"epoch_1.pth: these are not the weights of detectron2's"):
        convert_checkpoint(of_mmdet, target, source="detectron2", target="mmdet")
    with pytest.raises(UserError, match=r"out.pkl: use a name that ends in .pth"):
        convert_checkpoint(of_mmdet, tmp_path / "out.pkl", **options)
    torch.save({"state_dict": MMDET, "meta": Harmful()}, of_mmdet)
    with pytest.raises(UserError, match=r"holds more than weights .* add --trust-checkpoint"):
        convert_checkpoint(of_mmdet, target, **options)
    assert not target.exists()
    assert "code has run" not in capsys.readouterr().out
    convert_checkpoint(of_mmdet, target, trusted=True, **options)
    assert target.exists()


def test_tool(of_mmdet, tmp_path, root, monkeypatch, capsys):
    target = tmp_path / "new" / "there.pth"
    absent = tmp_path / "none.pth"
    for source, code in ((of_mmdet, 0), (absent, 2)):
        monkeypatch.setattr(sys, "argv", ["", str(source), str(target), "--from", "mmdet", "--to", "detectron2"])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(root / "tools" / "convert_weights.py"), run_name="__main__")
        assert ended.value.code == code
    assert capsys.readouterr().err == f"error: checkpoint {absent} does not exist; give the path of a .pth file\n"
    assert len(load(target)["model"]) == len(MMDET)
