"""Hungarian matching in a real, small Mask2Former that is fed NaN and infinity. Oracle: mmdet's own assigner."""

import copy
import math

import pytest
import torch
from helpers import peak_memory

from cvplugins.monitors import NonFiniteError

pytestmark = pytest.mark.openmmlab

COSTS = [
    dict(type="mmdet.ClassificationCost", weight=2.0),
    dict(type="mmdet.CrossEntropyLossCost", weight=5.0, use_sigmoid=True),
    dict(type="mmdet.DiceCost", weight=5.0, pred_act=True, eps=1.0),
]


def instances(bad=None, field="scores", queries=6):
    from mmengine.structures import InstanceData

    generator = torch.Generator().manual_seed(0)
    scores, masks = (torch.randn(queries, size, generator=generator) for size in (5, 40))
    predicted = InstanceData(scores=scores, masks=masks)
    if bad is not None:
        predicted[field][2, 1] = bad
    labels, truth = torch.tensor([0, 3, 1]), (torch.rand(3, 40, generator=generator) > 0.5).float()
    return predicted, InstanceData(labels=labels, masks=truth)


def assigner(kind="cvplugins.FiniteHungarianAssigner", **options):
    from mmengine.registry import TASK_UTILS, init_default_scope

    init_default_scope("mmdet")
    return TASK_UTILS.build(dict(type=kind, match_costs=copy.deepcopy(COSTS), **options))


@pytest.mark.parametrize("replace_by", [None, 1e5])
def test_finite_costs_are_matched_as_upstream_does(replace_by):
    predicted, truth = instances()
    expected = assigner("mmdet.HungarianAssigner").assign(predicted, truth)
    found = assigner(replace_by=replace_by).assign(predicted, truth)
    assert torch.equal(found.gt_inds, expected.gt_inds)
    assert torch.equal(found.labels, expected.labels)


@pytest.mark.parametrize(
    ("field", "bad", "named", "innocent"),
    [
        # Not -inf, whose softmax is 0.
        ("scores", math.nan, "ClassificationCost", "DiceCost"),
        ("scores", math.inf, "ClassificationCost", "DiceCost"),
        ("masks", math.nan, "DiceCost", "Classification"),
        # The sigmoid is 0 or 1, which the Dice cost can bear.
        ("masks", math.inf, "CrossEntropyLossCost", "Classification"),
        ("masks", -math.inf, "CrossEntropyLossCost", "Classification"),
    ],
)
def test_the_cost_that_is_not_finite_is_named(field, bad, named, innocent):
    predicted, truth = instances(bad, field)
    with pytest.raises(NonFiniteError) as caught:
        assigner().assign(predicted, truth, img_meta={"img_path": "street.jpg"})
    message = str(caught.value)
    assert f"{named}, " in message
    assert innocent not in message
    for part in ["(street.jpg)", "predictions 2)", "lower the learning rate", "replace_by=1e5"]:
        assert part in message


@pytest.mark.parametrize("field", ["scores", "masks"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_replaced_costs_are_matched_last(field, bad):
    """The oracle: the assignment without the bad prediction."""
    predicted, truth = instances(bad, field)
    found = assigner(replace_by=1e5).assign(predicted, truth).gt_inds
    keep = torch.tensor([0, 1, 3, 4, 5])
    expected = assigner("mmdet.HungarianAssigner").assign(instances()[0][keep], truth).gt_inds
    assert found[2] == 0
    assert torch.equal(found[keep], expected)


def test_only_bad_predictions_still_match():
    predicted, truth = instances(queries=4)
    predicted.scores[:] = math.nan
    found = assigner(replace_by=1e5).assign(predicted, truth).gt_inds
    assert sorted(found.tolist()) == [0, 1, 2, 3]


def test_no_targets():
    predicted, truth = instances(math.nan)
    assert assigner().assign(predicted, truth[:0]).gt_inds.tolist() == [0] * 6


def test_two_costs_of_one_kind_are_told_apart():
    from mmengine.registry import TASK_UTILS, init_default_scope

    init_default_scope("mmdet")
    costs = [dict(type="mmdet.ClassificationCost"), dict(type="mmdet.ClassificationCost", weight=math.inf)]
    built = TASK_UTILS.build(dict(type="cvplugins.FiniteHungarianAssigner", match_costs=costs))
    with pytest.raises(NonFiniteError, match=r"finite: ClassificationCost\[1\], 18 of 18 values"):
        built.assign(*instances())


@pytest.mark.parametrize("value", [0, -1.0, math.inf, math.nan])
def test_wrong_option_is_named(value):
    with pytest.raises(ValueError, match=r"replace_by is .*; give a large finite cost such as 1e5"):
        assigner(replace_by=value)


# -- Mask2Former ------------------------------------------------------------------------------------------------------


def mask2former(**options):
    from mmdet.registry import MODELS
    from small_models import small_mask2former

    config = small_mask2former()
    config.train_cfg.assigner.update(options)
    torch.manual_seed(0)
    return MODELS.build(config)


def losses_of(model):
    from small_models import batch

    torch.manual_seed(0)
    return model(**model.data_preprocessor(batch(masks=True), True), mode="loss")


def poison(model, bad):
    """Make the class scores of query 3 non-finite."""
    torch.nn.init.constant_(model.panoptic_head.query_feat.weight[3:4], bad)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_mask2former_of_mmdet(bad):
    with pytest.raises(ValueError, match="invalid numeric entries"):  # upstream's
        losses_of(poison(mask2former(), bad))
    kind = "cvplugins.FiniteHungarianAssigner"
    with pytest.raises(NonFiniteError, match=r"ClassificationCost, .*CrossEntropyLossCost, .*DiceCost"):
        losses_of(poison(mask2former(type=kind), bad))
    losses = losses_of(poison(mask2former(type=kind, replace_by=1e5), bad))
    assert not all(value.isfinite().all() for name, value in losses.items() if "loss" in name)


@pytest.mark.slow
def test_finite_mask2former_has_upstreams_losses():
    expected = losses_of(mask2former())
    torch.testing.assert_close(losses_of(mask2former(type="cvplugins.FiniteHungarianAssigner")), expected)


@pytest.mark.slow
def test_mask2former_head_of_mmseg():
    from mmengine.registry import init_default_scope
    from mmengine.structures import PixelData
    from mmseg.registry import MODELS
    from mmseg.structures import SegDataSample

    from cvplugins.openmmlab.run.config import make_mmseg_configs_reachable

    make_mmseg_configs_reachable()
    from mmengine.config import Config

    init_default_scope("mmseg")
    config = Config.fromstring("_base_ = 'mmseg::mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py'", ".py")
    head = config.model.decode_head
    head.update(in_channels=[8, 8, 8, 8], num_queries=6)
    head.pixel_decoder.encoder.num_layers = head.transformer_decoder.num_layers = 1
    head.train_cfg.num_points = 32
    head.train_cfg.assigner.type = "cvplugins.FiniteHungarianAssigner"
    built = MODELS.build(head)
    torch.nn.init.constant_(built.query_feat.weight[3:4], math.nan)
    features = [torch.randn(1, 8, size, size) for size in (16, 8, 4, 2)]
    sample = SegDataSample(gt_sem_seg=PixelData(data=torch.randint(0, 3, (1, 64, 64))))
    sample.set_metainfo(dict(img_shape=(64, 64), img_path="room.png"))
    with pytest.raises(NonFiniteError, match=r"\(room.png\): ClassificationCost, "):
        built.loss(features, [sample], head.train_cfg)


def crowd(targets, queries=20, points=2000):
    from mmengine.structures import InstanceData

    generator = torch.Generator().manual_seed(1)
    predicted = InstanceData(
        scores=torch.randn(queries, 5, generator=generator),
        masks=torch.randn(queries, points, generator=generator, requires_grad=True),
    )
    masks = (torch.rand(targets, points, generator=generator) > 0.5).float()
    return predicted, InstanceData(labels=torch.randint(5, (targets,), generator=generator), masks=masks)


@pytest.mark.parametrize("targets_at_once", [1, 7, 64, 100])
@pytest.mark.parametrize("targets", [0, 1, 64])
def test_costs_in_chunks_give_the_same_assignment(targets, targets_at_once):
    predicted, truth = crowd(targets)
    expected = assigner("mmdet.HungarianAssigner").assign(predicted, truth)
    found = assigner(targets_at_once=targets_at_once).assign(predicted, truth)
    assert torch.equal(found.gt_inds, expected.gt_inds)
    assert torch.equal(found.labels, expected.labels)


def test_memory_in_chunks_does_not_grow_with_the_objects():
    predicted, truth = crowd(400)
    whole, chunked, upstream = (
        peak_memory(lambda each=each: each.assign(predicted, truth))
        for each in (assigner(), assigner(targets_at_once=20), assigner("mmdet.HungarianAssigner"))
    )
    assert chunked < whole / 3
    assert whole < upstream


@pytest.mark.parametrize("options", [{"targets_at_once": 0}, {"targets_at_once": -3}])
def test_a_chunk_holds_at_least_one_object(options):
    with pytest.raises(ValueError, match="targets_at_once is"):
        assigner(**options)
