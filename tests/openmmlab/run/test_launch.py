"""Where a run starts, and how it joins other processes."""

import socket

import pytest
import torch
import torch.distributed

pytestmark = pytest.mark.openmmlab


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "epoch_1.pth"
    hub = {"log_scalars": {}, "runtime_info": {}, "resumed_keys": {}}
    optimizer = {"state": {}, "param_groups": []}
    meta = {"epoch": 1, "iter": 6, "seed": 17}
    torch.save({"state_dict": {}, "meta": meta, "message_hub": hub, "optimizer": optimizer}, path)
    return path


def start(resume_from, **config):
    from mmengine.config import Config

    from cvplugins.launching import Training
    from cvplugins.openmmlab.run.launch import _set_start

    config = Config(config)
    _set_start(config, Training(config="a.py", resume=resume_from))
    return config


def test_a_resumed_run_has_the_seed_of_its_checkpoint_from_the_start(checkpoint):
    """mmengine takes it over only after it has built model and loaders."""
    config = start(str(checkpoint), work_dir="none")
    assert (config.resume, config.load_from, config.randomness.seed) == (True, str(checkpoint), 17)
    assert start(str(checkpoint), work_dir="none", randomness={"seed": 3}).randomness.seed == 3


def test_the_newest_checkpoint_is_resumed(checkpoint, tmp_path):
    for config in (start("auto", work_dir=str(tmp_path)), start(None, work_dir=str(tmp_path), resume=True)):
        assert (config.resume, config.load_from) == (True, str(checkpoint))
    assert start("auto", work_dir="none").resume is False


def test_weights_to_begin_with_are_no_run_to_resume(checkpoint):
    config = start(None, work_dir="none", load_from=str(checkpoint))
    assert (config.resume, config.load_from) == (False, str(checkpoint))
    assert "randomness" not in config


@pytest.mark.parametrize("wrapper", [None, {"type": "cvplugins.SyncBatchNormDataParallel"}])
def test_unused_parameters_of_the_config_reach_the_wrapper(monkeypatch, wrapper):
    from mmengine.config import Config

    from cvplugins.openmmlab.run.processes import joined_processes

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, value in {"RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, str(value))
    config = Config(dict(launcher="pytorch", find_unused_parameters=True, model_wrapper_cfg=wrapper))
    with joined_processes(config):
        assert torch.distributed.get_backend() == "gloo"
    assert not torch.distributed.is_initialized()
    assert config.model_wrapper_cfg.find_unused_parameters
    assert config.model_wrapper_cfg.get("convert", True) == (wrapper is not None)
