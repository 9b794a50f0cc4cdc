"""Ways of testing. Oracles: the same pixels by hand, and mmseg's whole-image inference."""

import copy

import pytest
import torch

from cvplugins.errors import UserError

pytestmark = pytest.mark.openmmlab

CONFIG = "tests/integration/tiny_mask2former.py"


@pytest.fixture
def config(root, monkeypatch):
    from cvplugins.openmmlab.run.config import load_config

    monkeypatch.chdir(root)
    return load_config(CONFIG)


def build(config):
    from mmengine.registry import MODELS, init_default_scope

    init_default_scope("mmseg")
    torch.manual_seed(0)
    return MODELS.build(copy.deepcopy(config.model)).eval()


def scores(model, image):
    from mmseg.structures import SegDataSample

    meta = dict(ori_shape=image.shape[1:], img_shape=image.shape[1:])
    batch = {"inputs": [image], "data_samples": [SegDataSample(metainfo=meta)]}
    with torch.no_grad():
        return model.test_step(batch)[0].seg_logits.data


def test_nothing_given_changes_nothing(config):
    from cvplugins.openmmlab.models.inference import use_inference

    before = copy.deepcopy(config.to_dict())
    use_inference(config)
    assert config.to_dict() == before


def test_one_window_as_large_as_the_image_is_the_whole_image(config):
    from cvplugins.openmmlab.models.inference import use_inference

    image = torch.randint(0, 255, (3, 64, 64), generator=torch.Generator().manual_seed(0)).float()
    whole = scores(build(config), image)
    use_inference(config, mode="slide")
    assert config.model.test_cfg.to_dict() == {"mode": "slide", "crop_size": (64, 64), "stride": (42, 42)}
    torch.testing.assert_close(scores(build(config), image), whole)


def test_windows_are_averaged_where_they_overlap(config):
    """By hand: two windows of 64 columns over an image of 96; upstream's model fails here, with Mask2Former's head."""
    from cvplugins.openmmlab.models.inference import use_inference

    image = torch.randint(0, 255, (3, 64, 96), generator=torch.Generator().manual_seed(0)).float()
    plain = build(config)
    left, right = scores(plain, image[:, :, :64]), scores(plain, image[:, :, 32:])
    expected = torch.cat([left[:, :, :32], (left[:, :, 32:] + right[:, :, :32]) / 2, right[:, :, 32:]], dim=2)
    use_inference(config, mode="slide")
    torch.testing.assert_close(scores(build(config), image), expected)
    config.model.type = "EncoderDecoder"
    with pytest.raises(RuntimeError):
        scores(build(config), image)


def test_windows_of_the_config_are_kept(config):
    from cvplugins.openmmlab.models.inference import use_inference

    config.model.test_cfg = dict(mode="whole", crop_size=(32, 48), stride=(16, 16))
    use_inference(config, mode="slide")
    assert config.model.test_cfg.to_dict() == {"mode": "slide", "crop_size": (32, 48), "stride": (16, 16)}


def test_scales_and_flips_multiply(config):
    from cvplugins.openmmlab.models.inference import use_inference

    pipeline = copy.deepcopy(config.test_dataloader.dataset.pipeline)
    use_inference(config, scales=[0.5, 1.5], flip=True)
    first, versions = config.test_dataloader.dataset.pipeline
    assert first == pipeline[0]
    resizes, flips, *rest = versions["transforms"]
    assert [each["scale"] for each in resizes] == [(200, 56), (600, 168)]
    assert all(each["keep_ratio"] for each in resizes)
    assert [each["prob"] for each in flips] == [0.0, 1.0]
    assert rest == [[step] for step in pipeline[2:]]
    assert config.model.type == "cvplugins.MeanScoreTTAModel"
    assert config.val_dataloader.dataset.pipeline == pipeline


def test_scores_are_averaged_as_they_are():
    from mmengine.registry import MODELS, init_default_scope
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample
    from torch import nn

    init_default_scope("mmseg")
    module = nn.Module()
    module.test_step = None
    model = MODELS.build(dict(type="cvplugins.MeanScoreTTAModel", module=module))
    # A softmax first would let the second version win: 0.9 of 1 class is worth less there.
    versions = [torch.tensor([0.9, 0.0, 0.0]), torch.tensor([0.0, 0.8, 0.2])]
    samples = [
        SegDataSample(
            seg_logits=PixelData(data=each.reshape(3, 1, 1)), pred_sem_seg=PixelData(data=torch.zeros(1, 1, 1))
        )
        for each in versions
    ]
    (merged,) = model.merge_preds([samples])
    assert merged.seg_logits.data.flatten().tolist() == pytest.approx([0.45, 0.4, 0.1])
    assert merged.pred_sem_seg.data.tolist() == [[[0]]]


@pytest.mark.parametrize("options", [{"mode": "slide"}, {"flip": True}, {"scales": [1.0]}])
def test_a_detector_is_refused(root, options):
    from cvplugins.openmmlab.models.inference import use_inference
    from cvplugins.openmmlab.run.config import load_config

    with pytest.raises(UserError, match="are for mmseg's models"):
        use_inference(load_config(root / "configs/voc_faster_rcnn_sample.py"), **options)


def test_what_the_config_lacks_is_named(config):
    from cvplugins.openmmlab.models.inference import use_inference

    config.model.data_preprocessor.pop("size")
    with pytest.raises(UserError, match=r"model\.test_cfg\.crop_size"):
        use_inference(config, mode="slide")
    config.test_dataloader.dataset.pipeline = config.test_dataloader.dataset.pipeline[:1]
    with pytest.raises(UserError, match="needs one Resize"):
        use_inference(config, flip=True)
