"""What the tests of whole runs share."""

import logging

import pytest
from devkits import small_devkit


@pytest.fixture(scope="session")
def devkit(sample, tmp_path_factory):
    """A small VOC devkit; not to be changed."""
    return small_devkit(sample, tmp_path_factory.mktemp("data") / "VOCdevkit")


@pytest.fixture(autouse=True)
def loggers_as_before():
    """Take away what Detectron2's setup_logger leaves behind."""
    yield
    for name in ("detectron2", "fvcore", "cvplugins"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
