"""Resuming and beginning anew with Detectron2: nothing is lost, and what a run begins with is what was checked."""

import os
import pickle
import shutil

import numpy as np
import pytest
import torch
from lock_owner import end, owner
from small_detectron2_run import write_config

from cvplugins.errors import UserError

pytestmark = pytest.mark.detectron2


@pytest.fixture(scope="module")
def finished(tmp_path_factory, devkit):
    """Config and folder of a run of two iterations, with a checkpoint after each and the last one's copy."""
    from cvplugins.detectron2.run.launch import train

    folder = tmp_path_factory.mktemp("finished")
    keys = {"SOLVER.MAX_ITER": 2, "SOLVER.CHECKPOINT_PERIOD": 1, "TEST.DETECTIONS_PER_IMAGE": 5}
    config = write_config(folder / "small.yaml", devkit, **keys)
    train(config, work_dir=str(folder / "work"))
    assert not (folder / "work" / ".cvplugins.lock").exists()
    return config, folder / "work"


@pytest.fixture
def work(finished, tmp_path):
    """A copy of the run's folder."""
    shutil.copytree(finished[1], tmp_path / "work")
    return tmp_path / "work"


@pytest.fixture
def start(finished, work):
    """Check or begin a training in the copy, which must not change a file if it is refused."""
    from cvplugins.detectron2.run.launch import train

    def _start(dry_run=True, **options):
        before = {path: path.read_bytes() for path in work.rglob("*") if path.is_file()}
        try:
            return train(finished[0], work_dir=str(work), dry_run=dry_run, **options)
        except UserError:
            assert {path: path.read_bytes() for path in work.rglob("*") if path.is_file()} == before
            raise

    return _start


BAD_POINTERS = {
    "missing": None,
    "empty": b"",
    "no text": b"\xff\xfe\x00",
    "zero byte": b"a\x00b",
    "gone": b"model_0000099.pth",
    "a folder": b"inference",
    "long": b"x" * 10**6,
}


@pytest.mark.parametrize("pointer", BAD_POINTERS)
def test_the_newest_checkpoint_is_found_without_a_good_pointer(work, pointer):
    """Oracle: the numbers in the names; model_final is of the last iteration until the run is made longer."""
    from cvplugins.detectron2.run.resume_checks import last_checkpoint

    if BAD_POINTERS[pointer] is None:
        (work / "last_checkpoint").unlink()
    else:
        (work / "last_checkpoint").write_bytes(BAD_POINTERS[pointer])
    (work / "model_best.pth").write_bytes(b"x")
    for name, when in (("model_0000000", 100), ("model_0000001", 200), ("model_final", 201)):
        os.utime(work / f"{name}.pth", (when, when))
    assert last_checkpoint(work) == str(work / "model_final.pth")
    (work / "model_0000002.pth").write_bytes(b"x")
    assert last_checkpoint(work) == str(work / "model_0000002.pth")
    os.utime(work / "model_0000002.pth", (50, 50))  # copied with the folder: the number counts
    (work / "model_final.pth").unlink()
    assert last_checkpoint(work) == str(work / "model_0000002.pth")


def test_a_run_without_pointer_goes_on_and_overwrites_nothing(start, work):
    for name in ("last_checkpoint", "model_final.pth", "model_0000001.pth"):
        (work / name).unlink()
    before = (work / "model_0000000.pth").read_bytes()
    start(dry_run=False, resume="auto")
    assert "Starting training from iteration 1" in (work / "log.txt").read_text()
    assert (work / "model_0000000.pth").read_bytes() == before
    assert (work / "last_checkpoint").read_text() == "model_final.pth"


def test_the_trainer_itself_goes_on_without_pointer(finished, work):
    from cvplugins.detectron2 import CvpluginsTrainer, load_config, register_datasets

    (work / "last_checkpoint").unlink()
    cfg = load_config(finished[0], {"OUTPUT_DIR": str(work), "MODEL.DEVICE": "cpu"})
    register_datasets(cfg)
    trainer = CvpluginsTrainer(cfg)
    trainer.resume_or_load(resume=True)
    assert trainer.start_iter == 2


def test_a_new_run_overwrites_nothing_unless_asked(start, work, finished, tmp_path):
    for dry_run in (True, False):
        with pytest.raises(UserError, match=r"has checkpoints of a run already .*--resume.*--work-dir.*--overwrite"):
            start(dry_run)
        with pytest.raises(UserError, match="has checkpoints of a run already"):
            start(dry_run, resume=str(finished[1] / "model_0000000.pth"))
    with pytest.raises(UserError, match="--overwrite begins anew and --resume goes on"):
        start(overwrite=True, resume="auto")
    start(resume=str(work / "model_0000000.pth"))
    (work / "mine.pth").write_bytes(b"x")
    start(overwrite=True)
    start(dry_run=False, overwrite=True, cfg_options={"SOLVER.MAX_ITER": 1})
    left = sorted(path.name for path in work.glob("*.pth"))
    assert left == ["mine.pth", "model_0000000.pth", "model_final.pth"]


def test_a_broken_newest_checkpoint_is_passed_over(start, work, caplog):
    newest = work / "model_final.pth"
    state = torch.load(newest, weights_only=False)
    whole = bytearray(newest.read_bytes())
    whole[len(whole) // 2] ^= 1
    broken = [b"", b"cut off", bytes(whole)]
    broken += [{"model": 3}, {"model": {1: torch.zeros(1)}}, {"trainer": {**state["trainer"], "iteration": "x"}}]
    for content in broken:
        torch.save({**state, **content}, newest) if isinstance(content, dict) else newest.write_bytes(content)
        caplog.clear()
        start(resume="auto")
        assert any(
            f"{newest}" in each.getMessage() and "the run goes on from" in each.getMessage() for each in caplog.records
        )
        with pytest.raises(UserError, match=r"model_final\.pth"):
            start(resume=str(newest))
    for path in work.glob("model_*.pth"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match="none of its 3 checkpoints can be used"):
        start(resume="auto")


def test_partial_state_is_refused_with_the_way_to_begin_from_weights(start, work):
    newest = work / "model_final.pth"
    state = torch.load(newest, weights_only=False)
    trainer = state["trainer"]
    partial = {
        "trainer": {"model": state["model"]},
        "trainer._trainer.optimizer": state | {"trainer": trainer | {"_trainer": {}}},
        "trainer.hooks.LRScheduler": state | {"trainer": trainer | {"hooks": {}}},
        "trainer.iteration": state | {"trainer": {key: trainer[key] for key in trainer if key != "iteration"}},
    }
    for missing, content in partial.items():
        torch.save(content, newest)
        for resume in ("auto", str(newest)):
            with pytest.raises(UserError, match=rf"\({missing}\).*MODEL.WEIGHTS={newest}"):
                start(resume=resume)
    other = {"state": {}, "param_groups": [{"params": [0], "lr": 1}]}
    torch.save(state | {"trainer": trainer | {"_trainer": {"optimizer": other}}}, newest)
    with pytest.raises(UserError, match="has 1 parameter groups, and the config makes"):
        start(resume="auto")


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harmed",)


def test_weights_to_begin_with_are_opened_by_the_dry_run(finished, tmp_path, monkeypatch):
    from cvplugins.detectron2.run.launch import train

    monkeypatch.chdir(tmp_path)
    torch.save({"model": {}, "beside": Harmful()}, "evil.pth")
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps({"model": {}, "__author__": Harmful()}))
    torch.save({"model": {"a": torch.zeros(1)}}, "other.pth")
    torch.save({"model": None}, "none.pth")
    torch.save({"model": {"a": "word"}}, "word.pth")
    (tmp_path / "list.pkl").write_bytes(pickle.dumps({"blobs": [1]}))
    (tmp_path / "empty.pth").write_bytes(b"")
    cases = {
        "evil.pth": "holds more than weights",
        "evil.pkl": "holds more than weights",
        "other.pth": "none of its weights fits the model",
        "none.pth": "model is None, not a dict of weights",
        "word.pth": "is a str, not a tensor",
        "list.pkl": "blobs is no dict of weights",
        "empty.pth": "cannot be read",
    }
    for name, message in cases.items():
        for dry_run in (True, False):
            with pytest.raises(UserError, match=message):
                train(finished[0], work_dir="work", dry_run=dry_run, cfg_options={"MODEL.WEIGHTS": name})
    assert not (tmp_path / "harmed").exists()
    assert not (tmp_path / "work").exists()


def test_proposals_are_opened_before_detectron2_does(tmp_path, monkeypatch):
    """Oracle: Detectron2's own loader takes the first file, and runs the second."""
    from detectron2.config import get_cfg
    from detectron2.data.build import load_proposals_into_dataset
    from detectron2.structures import BoxMode

    from cvplugins.detectron2.data.proposals import check_proposals

    monkeypatch.chdir(tmp_path)
    boxes = {
        "ids": ["1"],
        "boxes": [np.zeros((1, 4))],
        "objectness_logits": [np.zeros(1)],
        "bbox_mode": BoxMode.XYXY_ABS,
    }
    cfg = get_cfg()
    cfg.MODEL.LOAD_PROPOSALS = True
    for name, content, message in (
        ("good.pkl", boxes, None),
        ("evil.pkl", boxes | {"more": Harmful()}, "holds more than boxes and scores"),
        ("list.pkl", [boxes], "is no dict with ids"),
    ):
        (tmp_path / name).write_bytes(pickle.dumps(content))
        cfg.DATASETS.PROPOSAL_FILES_TRAIN = (name,)
        if message is None:
            check_proposals(cfg)
            assert load_proposals_into_dataset([{"image_id": "1"}], name)[0]["proposal_bbox_mode"] == BoxMode.XYXY_ABS
        else:
            with pytest.raises(UserError, match=message):
                check_proposals(cfg)
    cfg.DATASETS.PROPOSAL_FILES_TRAIN = ("none.pkl",)
    with pytest.raises(UserError, match=r"none\.pkl does not exist"):
        check_proposals(cfg)
    assert not (tmp_path / "harmed").exists()


def test_a_work_dir_in_use(finished, tmp_path):
    from cvplugins.detectron2.run.launch import train

    (tmp_path / "work").mkdir()
    child = owner(tmp_path / "work")
    try:
        for dry_run in (True, False):
            with pytest.raises(UserError, match=f"in use by another run .process {child} on host"):
                train(finished[0], work_dir=str(tmp_path / "work"), dry_run=dry_run)
        assert os.listdir(tmp_path / "work") == [".cvplugins.lock"]
    finally:
        end(child)


@pytest.mark.parametrize("address", ["detectron3://model.pkl", "s4://bucket/model.pth"])
def test_an_address_that_no_reader_knows(address):
    from cvplugins.detectron2.run.resume_checks import check_exists
    from cvplugins.errors import UserError

    for known in ("detectron2://ImageNetPretrained/MSRA/R-50.pkl", "https://a.org/model.pth"):
        check_exists(known)
    with pytest.raises(UserError, match=r"no reader knows this kind of address; there are .*detectron2://"):
        check_exists(address)
