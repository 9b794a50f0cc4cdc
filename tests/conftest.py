"""Skip what this machine lacks, each with one clear reason; share the paths of the test data."""

from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from bytecode import keep_bytecode
from skips import count_tests, has_gpu, has_mask2former, is_installed, pytest_addoption  # noqa: F401
from unformatted import leave_configs_unformatted

ROOT = Path(__file__).parent.parent
collect_ignore = ["integration/tiny.py", "integration/tiny_mask2former.py"]  # configs, not modules

NEEDS = {
    "openmmlab": (
        lambda: is_installed("mmdet"),
        "mmdet is not installed (see docs/install.md)",
    ),
    "detectron2": (
        lambda: is_installed("detectron2"),
        "detectron2 is not installed (see docs/install.md)",
    ),
    "mask2former": (
        has_mask2former,
        "no original Mask2Former: set MASK2FORMER_ROOT to a checkout, and install detectron2 and timm",
    ),
    "gpu": (has_gpu, "no CUDA device"),
}


def pytest_configure(config: pytest.Config) -> None:
    keep_bytecode()
    count_tests(config)
    config.option.loadscopereorder = False  # pytest-xdist would begin with the files of many tests, not of slow ones


def pytest_collection(session: pytest.Session) -> None:
    """Prepare a process that runs tests; one that only hands them to pytest-xdist's workers needs no torch."""
    import torch

    # Tensors are small here: threads that wait for each other cost more than they bring, most on a busy machine.
    torch.set_num_threads(1)
    leave_configs_unformatted()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Keep what was imported and collected out of garbage collections, which mmengine does for every dataset."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what cannot run, and put the slowest files first, so that no process ends with a long one alone."""
    in_file = Counter(item.path for item in items)
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path not in slow, -in_file[item.path]))
    missing = {marker: reason for marker, (is_there, reason) in NEEDS.items() if not is_there()}
    for item in items:
        for marker, reason in missing.items():
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session", autouse=True)
def file_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where these tests keep what they read from files, instead of the user's own cache folder."""
    folder = tmp_path_factory.mktemp("file_cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CVPLUGINS_CACHE_DIR", str(folder))
        yield folder


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's folder."""
    return ROOT


@pytest.fixture(scope="session")
def sample() -> Path:
    """The embedded VOC sample."""
    return ROOT / "data" / "sample" / "VOCdevkit"


@pytest.fixture(scope="session")
def scenes() -> Path:
    """The embedded sample of scenes."""
    return ROOT / "data" / "sample" / "ADEChallengeData2016"


@pytest.fixture(scope="session")
def real_voc() -> Path:
    """80 real VOC photographs, their annotations and a detector's results; not part of the project."""
    folder = Path(os.environ.get("CVPLUGINS_REAL_VOC", ROOT.parent / "shared" / "real_voc"))
    if not folder.is_dir():
        pytest.skip("no real VOC photographs: set CVPLUGINS_REAL_VOC to a folder that holds VOCdevkit and detections")
    return folder


@pytest.fixture(scope="session")
def real_ade20k() -> Path:
    """Three images of ADE20K with their label maps; not part of the project."""
    folder = Path(os.environ.get("CVPLUGINS_REAL_ADE20K", ROOT.parent / "shared" / "real_ade20k"))
    if not folder.is_dir():
        pytest.skip("no real ADE20K labels: set CVPLUGINS_REAL_ADE20K to a folder that holds ADEChallengeData2016")
    return folder
