"""The loss on the test set. Oracle: the model's own training code on the same image, with nothing random left."""

from types import SimpleNamespace

import pytest
import torch
from small_detectron2 import batch, small_config

pytestmark = pytest.mark.detectron2


def model_of(kind, norm="BN"):
    from detectron2.modeling import build_model

    cfg = small_config(kind, ours=False)
    cfg.MODEL.RESNETS.NORM = norm
    torch.manual_seed(0)
    return build_model(cfg)


def hook_of(model, records):
    from cvplugins.detectron2 import ValidationLoss

    hook = ValidationLoss([[record] for record in records])
    hook.trainer = SimpleNamespace(model=model, iter=7)
    return hook


@pytest.mark.parametrize("kind", ["retinanet", "mask"])
def test_nothing_of_the_model_or_the_generators_moves(kind):
    model, records = model_of(kind), batch()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    numbers = [{k: v for k, v in vars(each).items() if isinstance(v, (int, float))} for each in model.modules()]
    state = torch.get_rng_state()
    hook = hook_of(model, records)
    losses = hook.results()["val"]
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert numbers == [{k: v for k, v in vars(e).items() if isinstance(v, (int, float))} for e in model.modules()]
    assert all(each.training for each in model.modules())
    assert all(value.grad is None for value in model.parameters())
    assert losses == hook.results()["val"]
    assert losses["loss"] == pytest.approx(sum(value for name, value in losses.items() if name != "loss"))
    assert set(losses) > {"loss", "loss_cls"}


def test_it_is_the_training_loss_of_a_model_whose_norms_are_frozen():
    """With frozen norms training and evaluation mode of the layers are one; the same seed draws the same samples."""
    from detectron2.utils.events import EventStorage

    model, records = model_of("fpn", norm="FrozenBN"), batch()
    expected = {}
    for record in records:
        torch.manual_seed(0)
        with EventStorage(), torch.no_grad():
            for name, value in model.train()([record]).items():
                expected[name] = expected.get(name, 0.0) + value.item() / len(records)
    losses = hook_of(model, records).results()["val"]
    assert {name: losses[name] for name in expected} == pytest.approx(expected, rel=1e-6)


def test_the_loader_of_a_config_has_true_instances_at_the_size_of_tests(tmp_path):
    import numpy as np
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from detectron2.structures import BoxMode
    from PIL import Image

    from cvplugins.detectron2 import build_cvplugins_hooks

    Image.fromarray(np.zeros((20, 40, 3), np.uint8)).save(tmp_path / "a.png")
    objects = [{"bbox": [4, 4, 20, 16], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}]
    record = {"file_name": str(tmp_path / "a.png"), "image_id": 1, "height": 20, "width": 40}
    DatasetCatalog.register("small_test", lambda: [{**record, "annotations": objects}])
    MetadataCatalog.get("small_test").thing_classes = ["a"]
    try:
        cfg = small_config("fpn", ours=False)
        cfg.DATASETS.TEST, cfg.TEST.EVAL_PERIOD, cfg.DATALOADER.NUM_WORKERS = ("small_test",), 2, 0
        cfg.INPUT.MIN_SIZE_TEST = 40
        cfg.CVPLUGINS.HOOKS = [{"type": "cvplugins.ValidationLoss"}]
        (hook,) = build_cvplugins_hooks(cfg)
        ((found,),) = hook._loader()
        assert found["image"].shape == (3, 40, 80)
        assert found["instances"].gt_boxes.tensor.tolist() == [[8, 8, 40, 32]]
        hook.trainer = SimpleNamespace(model=model_of("fpn"), iter=0)
        assert hook.results()["val"]["loss"] > 0
    finally:
        DatasetCatalog.remove("small_test")
        MetadataCatalog.remove("small_test")


def test_records_without_true_instances_are_an_error_that_says_what_to_use():
    from cvplugins.errors import UserError

    with pytest.raises(UserError, match=r"needs the true instances of a\.jpg.*use build_validation_loader"):
        hook_of(model_of("fpn"), [{"image": torch.zeros(3, 8, 8), "file_name": "a.jpg"}]).results()


def test_results_of_all_hooks_reach_the_storage(tmp_path):
    """ValidationLoss within the evaluation feeds EarlyStoppingHook, which needs its name."""
    from small_detectron2_trainer import train

    from cvplugins.detectron2 import EarlyStoppingHook, ValidationLoss

    class Fixed(ValidationLoss):
        def results(self):
            return {"val": {"loss": 2.0}}

    stopping = EarlyStoppingHook("val/loss", output_dir=str(tmp_path), restore_best=False)
    trainer = train(tmp_path, [stopping, Fixed([])], iterations=2, evaluate=lambda trainer: {"bbox": {"AP": 1.0}})
    assert trainer.storage.latest()["val/loss"] == (2.0, 2)
    assert trainer.storage.latest()["bbox/AP"] == (1.0, 2)
    assert stopping.monitor.judge.best == 2.0
