"""The classification metric as mmengine's evaluator calls it, on samples like mmpretrain's; the core is the oracle."""

import json

import numpy as np
import pytest
import torch
from helpers import run_ranks

pytestmark = pytest.mark.openmmlab

TASKS = ("multiclass", "multilabel", "binary")
CLASSES = ("cat", "dog", "owl")


def cases(task, count=30):
    generator = np.random.default_rng(0)
    if task == "multiclass":
        return generator.dirichlet(np.ones(3), count).astype(np.float32), generator.integers(0, 3, count)
    shape = (count, 3) if task == "multilabel" else (count,)
    return generator.random(shape, np.float32), generator.integers(0, 2, shape)


def samples_of(task, scores, labels):
    from mmengine.structures import BaseDataElement

    samples = []
    for index, (score, label) in enumerate(zip(scores, labels, strict=True)):
        sample = BaseDataElement(metainfo=dict(img_path=f"{index}.jpg"))
        sample.pred_score = torch.tensor([1 - score, score] if task == "binary" else score)
        if task == "multilabel" and index % 2:
            sample.gt_score = torch.tensor(label)
        else:
            sample.gt_label = torch.tensor(np.flatnonzero(label) if task == "multilabel" else [label])
        samples.append(sample)
    return samples


def evaluate(samples, classes=CLASSES, size=None, **options):
    from mmengine.evaluator import Evaluator
    from mmengine.logging import MMLogger

    MMLogger.get_instance("test")
    evaluator = Evaluator(dict(type="cvplugins.ClassificationMetric", **options))
    evaluator.dataset_meta = dict(classes=classes)
    for start in range(0, len(samples), 4):
        evaluator.process(samples[start : start + 4])
    return evaluator.evaluate(len(samples) if size is None else size), evaluator.metrics[0]


@pytest.mark.parametrize("task", ["multiclass", "multilabel", "binary"])
def test_keys_values_and_files(task, tmp_path):
    from cvplugins.metrics import ClassificationMetric

    classes = ("no", "yes") if task == "binary" else CLASSES
    scores, labels = cases(task)
    core = ClassificationMetric(classes, task)
    core.update(scores, labels)
    found, metric = evaluate(samples_of(task, scores, labels), classes, task=task, out_dir=tmp_path)
    assert found == {f"cls/{name}": value for name, value in core.compute().scalars().items()}
    assert json.loads(metric.written["results"].read_text())["mean"] == core.compute().scalars()
    kinds = {"figure", *(["confusion"] * (task != "multilabel")), *(["rates"] * (task != "binary"))}
    names = {f"cls_{kind}{suffix}" for kind in kinds for suffix in (".png", ".svg")} | {"cls_results.json"}
    assert {path.name for path in tmp_path.iterdir()} == names


def test_difficult_labels_count_nowhere():
    """mmpretrain's VOC: what is labelled as difficult only is unknown; the core is given -1 there."""
    from cvplugins.metrics import ClassificationMetric

    scores, labels = cases("multilabel", 6)
    samples = samples_of("multilabel", scores, labels)
    difficult = [[0], [], [1, 2], [0, 1], [2], []]
    for sample, row, classes in zip(samples, labels, difficult, strict=True):
        sample.set_field(classes, "gt_label_difficult")
        row[[index for index in classes if not row[index]]] = -1
    assert (labels == -1).sum() >= 2
    core = ClassificationMetric(CLASSES, "multilabel")
    core.update(scores, labels)
    expected = {f"cls/{name}": value for name, value in core.compute().scalars().items()}
    assert evaluate(samples, task="multilabel")[0] == expected
    scored = [sample.to_dict() for sample in samples_of("multilabel", scores, np.maximum(labels, 0))]
    for sample, row in zip(scored, labels, strict=True):
        sample["gt_score"] = torch.tensor(row)
    assert evaluate(scored, task="multilabel")[0] == expected


def on_a_rank(folder):
    """Evaluate each task with all on the first rank, and with every second sample and a duplicate as samplers pad."""
    from cvplugins.distributed import rank

    found = {}
    for task in TASKS:
        samples = [sample.to_dict() for sample in samples_of(task, *cases(task, 7))]
        classes = ("no", "yes") if task == "binary" else CLASSES
        for split, own in (("idle", [samples, []][rank()]), ("padded", [*samples, samples[0]][rank() :: 2])):
            out_dir = folder / task / split
            found[task, split] = evaluate(own, classes, size=len(samples), task=task, out_dir=out_dir)[0]
    return found


@pytest.mark.distributed
def test_two_ranks_give_what_one_gives(tmp_path):
    one, other = run_ranks(on_a_rank, 2, tmp_path)
    assert one == other
    for task in TASKS:
        expected, _ = evaluate(
            samples_of(task, *cases(task, 7)), ("no", "yes") if task == "binary" else CLASSES, task=task
        )
        for split in ("idle", "padded"):
            assert one[task, split] == expected
            written = json.loads((tmp_path / task / split / "cls_results.json").read_text())
            assert written["num_samples"] == 7


def test_wrong_samples_are_named():
    scores, labels = cases("multiclass")
    scores[5, 0] = np.nan
    with pytest.raises(ValueError, match=r"sample 5\.jpg: a score is NaN"):
        evaluate(samples_of("multiclass", scores, labels))
    samples = samples_of("multilabel", *cases("multilabel"))
    samples[0].gt_label = torch.tensor([3])
    with pytest.raises(ValueError, match=r"image 0\.jpg: label 3 is none of 0 to 2"):
        evaluate(samples, task="multilabel")
    del samples[1].pred_score
    with pytest.raises(ValueError, match=r"image 1\.jpg: no pred_score"):
        evaluate(samples[1:], task="multilabel")
    samples[0].gt_label = torch.tensor([0, 1])
    with pytest.raises(ValueError, match=r"image 0\.jpg: 2 labels"):
        evaluate(samples[:1])
    with pytest.raises(ValueError, match="the dataset names no classes"):
        evaluate(samples[:1], classes=None)
    with pytest.raises(ValueError, match="task is 'multi'"):
        evaluate([], task="multi")
