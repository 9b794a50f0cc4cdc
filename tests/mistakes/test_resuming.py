"""Resuming and beginning anew: nothing is lost, and what a run begins with is what was checked; mmdet."""

import copy
import os
import pickle
import tarfile
from pathlib import Path

import pytest
import torch
from devkits import small_devkit
from lock_owner import end, owner

pytestmark = pytest.mark.openmmlab

TINY = "tests/integration/tiny.py"


@pytest.fixture(scope="module")
def devkit(sample, tmp_path_factory):
    return small_devkit(sample, tmp_path_factory.mktemp("data") / "VOCdevkit")


@pytest.fixture(scope="module")
def built(root):
    """The config TINY, and its model."""
    from mmengine.registry import MODELS, init_default_scope

    from cvplugins.openmmlab.run.config import load_config

    cfg = load_config(root / TINY)
    init_default_scope(cfg.default_scope)
    return cfg, MODELS.build(cfg.model)


@pytest.fixture(scope="module")
def state(built):
    """What mmengine's Runner.save_checkpoint writes for the model of TINY, after no iteration."""
    from mmengine.optim import build_optim_wrapper

    cfg, model = built
    return {
        "meta": {"epoch": 1, "iter": 6, "seed": 3},
        "state_dict": model.state_dict(),
        "message_hub": {"log_scalars": {}, "runtime_info": {}, "resumed_keys": {}},
        "optimizer": build_optim_wrapper(model, cfg.optim_wrapper).state_dict(),
        "param_schedulers": [],
    }


@pytest.fixture
def work(tmp_path):
    """The folder that the fixture ``tool`` gives to --work-dir."""
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


@pytest.fixture
def train(tool, devkit, work):
    """Check or run a training; return exit code, last line and the error line, and that no file was changed."""

    def _train(*options, dry=True, config=(), base=TINY):
        before = contents(work)
        command = ["train", base, "--cfg-options", f"data_root={devkit}", *config, *options]
        code, last, errors = tool(*command, *(["--dry-run"] if dry else []))
        assert contents(work) == before
        return code, last, errors[0] if errors else ""

    return _train


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


FINE = (0, [f"config, plugins and data of {TINY} are fine"], "")


def test_a_new_run_overwrites_no_checkpoint(train, work):
    for name in ("epoch_12.pth", "iter_500.pth", "best_bbox_AP50_epoch_3.pth", "best_weights.pth"):
        (work / name).write_bytes(b"of an earlier run")
        for dry in (True, False):
            code, _, error = train(dry=dry)
            assert code == 2
            wanted = f"work dir {work} has checkpoints of a run already ({name})"
            for part in (wanted, "--resume", "--work-dir", "--overwrite"):
                assert part in error
        (work / name).unlink()


def test_a_work_dir_in_use(train, work):
    child = owner(work)
    try:
        for dry in (True, False):
            code, _, error = train(dry=dry)
            assert code == 2
            assert f"work dir {work} is in use by another run (process {child} on host " in error
    finally:
        end(child)


def test_a_new_run_may_overwrite_when_asked(train, work):
    for name in ("epoch_12.pth", "last_checkpoint", "mine.pth", "notes.txt"):
        (work / name).write_bytes(b"x")
    assert train("--overwrite") == FINE
    assert train("--overwrite", "--resume")[2].startswith("error: --overwrite begins anew and --resume goes on")


def test_what_is_deleted_is_the_earlier_runs(tmp_path):
    """Oracle: the names that mmengine's CheckpointHook and our hooks write."""
    from cvplugins.openmmlab.run.checkpoint import run_folder

    for name in ("epoch_12.pth", "best_weights.pth", "last_checkpoint", "mine.pth", "notes.txt", "epoch_1.pth"):
        (tmp_path / name).write_bytes(b"x")
    run_folder(tmp_path).clear(keep=[tmp_path / "epoch_1.pth"])
    assert sorted(os.listdir(tmp_path)) == ["epoch_1.pth", "mine.pth", "notes.txt"]


def test_checkpoints_in_a_folder_and_with_names_of_the_config(train, work, state):
    hook = [f"default_hooks.checkpoint.out_dir={work}/kept", "default_hooks.checkpoint.filename_tmpl=at_{}.pth"]
    folder = work / "kept" / "work"
    folder.mkdir(parents=True)
    torch.save(state, folder / "at_7.pth")
    assert "(at_7.pth)" in train(config=hook)[2]
    assert train("--resume", config=hook) == FINE


def test_going_on_from_elsewhere_overwrites_nothing_either(train, work, state, tmp_path):
    torch.save(state, tmp_path / "elsewhere.pth")
    assert train("--resume", tmp_path / "elsewhere.pth") == FINE
    torch.save(state, work / "epoch_1.pth")
    assert "has checkpoints of a run already" in train("--resume", tmp_path / "elsewhere.pth")[2]
    assert train("--resume", work / "epoch_1.pth") == FINE


@pytest.mark.parametrize(
    "content",
    [b"", b"cut off", None, "state_dict", "keys", "values", "meta", "moments"],
    ids=lambda content: str(content),
)
def test_a_broken_newest_checkpoint_is_passed_over(train, built, work, state, caplog, content):
    from cvplugins.launching import Training
    from cvplugins.openmmlab.run.launch import _set_start

    torch.save(state, work / "epoch_2.pth")
    newest = work / "epoch_10.pth"
    broken = {
        "state_dict": {"state_dict": None},
        "keys": {"state_dict": {3: torch.zeros(1)}},
        "values": {"state_dict": {"a": "word"}},
        "meta": {"meta": {"epoch": "three", "iter": 6}},
        "moments": {"optimizer": {"state": {}}},
    }
    if isinstance(content, bytes):
        newest.write_bytes(content)
    else:
        torch.save(state | broken.get(content, {}), newest)
    if content is None:  # a flipped byte amid the weights
        whole = bytearray(newest.read_bytes())
        whole[len(whole) // 2] ^= 1
        newest.write_bytes(whole)
    with caplog.at_level("WARNING", logger="cvplugins"):
        if content is None:
            assert train("--resume") == FINE
        else:
            cfg = copy.deepcopy(built[0])
            cfg.work_dir = str(work)
            _set_start(cfg, Training(config="a.py", resume="auto"))
            assert cfg.load_from == str(work / "epoch_2.pth")
    warned = [record.getMessage() for record in caplog.records if "goes on from epoch_2.pth" in record.getMessage()]
    assert len(warned) == 1
    assert str(newest) in warned[0]
    named = train("--resume", newest)
    assert named[0] == 2
    assert str(newest) in named[2]


def test_no_whole_checkpoint_is_no_new_run(train, work):
    for name in ("epoch_1.pth", "epoch_2.pth"):
        (work / name).write_bytes(b"")
    code, _, error = train("--resume")
    assert code == 2
    assert "none of its 2 checkpoints can be used" in error
    assert "epoch_2.pth cannot be read (the file is empty)" in error


@pytest.mark.parametrize("key", ["meta", "message_hub", "optimizer", "param_schedulers", "state_dict"])
def test_weights_without_the_state_of_a_run(train, work, state, key):
    path = work / "epoch_1.pth"
    torch.save({name: value for name, value in state.items() if name != key}, path)
    for given in ([], [path]):
        code, _, error = train("--resume", *given)
        assert code == 2
        assert f"epoch_1.pth cannot be resumed: it has no {key}" in error
        assert f"--cfg-options load_from={path}" in error


def test_the_state_of_another_optimizer(train, built, work, state):
    """Torch takes the first over in silence, and fails at the first step."""
    from cvplugins.errors import UserError
    from cvplugins.openmmlab.run.resume_checks import check_optimizer

    groups = state["optimizer"]["param_groups"]
    moments = {groups[0]["params"][0]: {"exp_avg": torch.zeros(2), "momentum_buffer": torch.zeros(2)}}
    others = {
        "which the config's": ({}, [{"params": group["params"], "lr": 0.1} for group in groups]),
        "parameter groups, and the config makes": ({}, groups * 2),
        "parameters, and the config makes": ({}, [{**group, "params": group["params"][1:]} for group in groups]),
        r"of \(2,\), not \(": (moments, groups),
    }
    check_optimizer(*built, state, "a.pth")
    for message, (kept, other) in others.items():
        found = state | {"optimizer": {"state": kept, "param_groups": other}}
        with pytest.raises(UserError, match=message):
            check_optimizer(*built, found, "a.pth")
    torch.save(found, work / "epoch_1.pth")
    code, _, error = train("--resume")
    assert code == 2
    assert "of (2,), not (" in error


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harmed",)


def two_files_in_one(path):
    """Write a file that is a harmless pickle to a pickle's reader, and to tarfile an archive of torch's first form.

    torch below 2.6 tries the archive first.
    """
    harmless = pickle.dumps({"state_dict": {}}, protocol=0)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name in (harmless.decode("latin1"), "storages", "tensors", "pickle"):
            content = path.parent / "content"
            content.write_bytes(pickle.dumps(Harmful(), protocol=2))
            archive.add(content, name)
            content.unlink()


def pretrained(path):
    return {"_delete_": True, "type": "Pretrained", "checkpoint": str(path)}


def with_backbone(root, folder, **changes):
    """Write a config in which the backbone is changed; return its path."""
    path = folder / "mine.py"
    path.write_text(f"_base_ = {str(root / TINY)!r}\nmodel = dict(backbone={changes!r})\n")
    return path


@pytest.mark.parametrize("name", ["evil.pth", "evil.pkl"])
def test_nothing_in_a_file_runs_wherever_it_is_named(train, tmp_path, root, name):
    path = tmp_path / name
    base = with_backbone(root, tmp_path, init_cfg=pretrained(path))
    places = [{"config": [f"load_from={path}"]}, {"base": base}, {"config": [f"model.backbone.pretrained={path}"]}]
    for write in (two_files_in_one, lambda path: torch.save({"state_dict": {}, "meta": Harmful()}, path)):
        write(path)
        for named, options in [((), each) for each in places] + [(("--resume", path), {})]:
            code, _, error = train(*named, **options)
            assert code == 2
            assert str(path) in error
            # Of a .pkl the harmless half of two_files_in_one is read, which has no weights and no state of a run.
            reasons = ("cannot be read", "holds more", "none of its 0 weights", "resumed", "is empty")
            assert any(part in error for part in reasons)
            assert not Path(root, "harmed").exists()


def test_mmengine_itself_reads_as_we_do(tmp_path, monkeypatch):
    """Oracle: mmengine's own reader, which runs the file."""
    from mmengine.model import BaseModule
    from mmengine.runner.checkpoint import load_checkpoint

    from cvplugins.errors import UserError
    from cvplugins.openmmlab.run.checkpoint_readers import safe_readers

    class Layer(BaseModule):
        def __init__(self, path):
            super().__init__(init_cfg={"type": "Pretrained", "checkpoint": str(path)})
            self.weight = torch.nn.Parameter(torch.zeros(2))

    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {"weight": torch.ones(2)}}, "good.pth")
    torch.save({"state_dict": {"weight": torch.ones(2)}, "meta": Harmful()}, "bad.pth")
    with safe_readers():
        layer = Layer("good.pth")
        layer.init_weights()
        assert layer.weight.tolist() == [1, 1]
        for read in (Layer("bad.pth").init_weights, lambda: load_checkpoint(Layer("good.pth"), "bad.pth")):
            with pytest.raises(UserError, match="holds more than weights"):
                read()
        with pytest.raises(UserError, match="cannot be checked before"):
            load_checkpoint(layer, "s3://bucket/a.pth")
        with pytest.raises(UserError, match="torchvision's model zoo has no resnet5"):
            load_checkpoint(layer, "torchvision://resnet5")
    assert not Path("harmed").exists()
    with safe_readers(trusted=True):
        Layer("bad.pth").init_weights()
    assert Path("harmed").is_dir()


def test_pretrained_weights_that_are_missing(train, tmp_path, root):
    code, _, error = train(base=with_backbone(root, tmp_path, init_cfg=pretrained(tmp_path / "none.pth")))
    assert code == 2
    assert f"model.backbone.init_cfg.checkpoint: checkpoint {tmp_path}/none.pth does not exist" in error


def test_weights_to_begin_with_that_reach_no_layer(train, tmp_path):
    path = tmp_path / "other.pth"
    for content, message in (
        ({"state_dict": {"a": torch.zeros(1)}}, "none of its 1 weights, such as a, fits the model"),
        ({"model": {"a": torch.zeros(1)}}, "has no state_dict and no weights; it has model"),
        ({"state_dict": [1]}, "state_dict is a list, not a dict of weights"),
    ):
        torch.save(content, path)
        code, _, error = train(config=[f"load_from={path}"])
        assert code == 2
        assert message in error
