"""Config lines of `cvplugins data stats`, read and built by Detectron2. Oracles: its own sampler and generator."""

import json

import numpy as np
import pytest
from detectron2.data.samplers import RepeatFactorTrainingSampler
from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import build_anchor_generator

from cvplugins.cli import main
from cvplugins.datasets.layouts import find_splits
from cvplugins.datasets.statistics import image_repeat_factors, read_content
from cvplugins.detectron2 import load_config, validate_cvplugins_config
from cvplugins.detectron2.models.losses import PLACES

pytestmark = pytest.mark.detectron2


def test_a_detector_takes_the_lines(sample, capsys, tmp_path):
    numbers = tmp_path / "stats.json"
    arguments = ["--config-lines", "detectron2", "--scale", "200", "200", "--json", str(numbers)]
    assert main(["data", "stats", str(sample), *arguments]) == 0
    lines = capsys.readouterr().out.split("\n\n")[-1]
    found = json.loads(numbers.read_text())["suggestions"]
    path = tmp_path / "config.yaml"
    path.write_text(f"_BASE_: cvplugins::detectron2/voc_faster_rcnn_sample.yaml\n{lines}\n")
    cfg = load_config(path)
    validate_cvplugins_config(cfg)  # computes the loss with weights for 20 classes and the background
    assert cfg.CVPLUGINS.LOSSES.CLS.class_weight == pytest.approx([*found["weights"]["inverse"], 1], rel=1e-3)
    assert cfg.DATALOADER.SAMPLER_TRAIN == "RepeatFactorTrainingSampler"
    assert pytest.approx(found["repeat_threshold"], rel=1e-3) == cfg.DATALOADER.REPEAT_THRESHOLD
    anchors = found["anchors"]
    levels = [ShapeSpec(stride=stride) for stride in anchors["strides"]]
    cells = [each.numpy() for each in build_anchor_generator(cfg, levels).cell_anchors]
    for stride, cell in zip(anchors["strides"], cells, strict=True):
        width, height = cell[:, 2] - cell[:, 0], cell[:, 3] - cell[:, 1]
        assert np.sqrt(width * height) == pytest.approx(stride * anchors["scale"], rel=0.01)
        assert height / width == pytest.approx(anchors["ratios"], rel=0.01)


@pytest.mark.parametrize("threshold", [0.05, 0.13, 0.5])
def test_repeat_factors_are_detectron2s(sample, threshold):
    content = read_content(find_splits(sample)[0])
    records = [{"annotations": [{"category_id": int(k)} for k in np.flatnonzero(row)]} for row in content.presence]
    expected = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
        [each for each in records if each["annotations"]], threshold
    )
    # Detectron2 leaves out images without objects before it counts.
    whole = content.presence[content.presence.any(axis=1)]
    assert image_repeat_factors(whole, threshold) == pytest.approx(expected.numpy())


def test_mask2former_takes_the_weights(scenes, capsys):
    assert main(["data", "stats", str(scenes), "--config-lines", "detectron2", "--weights", "effective"]) == 0
    lines = capsys.readouterr().out.split("\n\n")[-1]
    import yaml

    entry = yaml.safe_load(lines)["CVPLUGINS"]["LOSSES"]["M2F_CLS"]
    PLACES["M2F_CLS"].of(entry).try_out(150)
