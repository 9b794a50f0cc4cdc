"""Hard-example mining against a loop, mmdet's SSD head, torchvision's SSD and mmseg's pixel sampler."""

import math
from fractions import Fraction
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from cvplugins.losses import (
    BCELoss,
    BoxIoULoss,
    CrossEntropyLoss,
    DiceLoss,
    FocalLoss,
    L1Loss,
    OHEMLoss,
    hardest,
    hardest_negatives,
)


def chosen_by_loop(losses, candidates, count):
    """Return the indices of the ``count`` largest losses among the candidates, the first of equal ones."""
    hardest_first = sorted(candidates, key=lambda index: (-losses[index], index))
    return set(hardest_first[:count])


def mask_of(indices, size):
    return torch.tensor([index in indices for index in range(size)])


def losses_with_ties(seed=0, size=40):
    generator = torch.Generator().manual_seed(seed)
    loss = torch.randint(0, 8, (size,), generator=generator) / 8
    return loss, torch.rand(size, generator=generator) < 0.7, torch.rand(size, generator=generator) < 0.15


@pytest.mark.parametrize("ratio", ["0", "0.1", "0.25", "0.7", "1"])
@pytest.mark.parametrize("min_kept", [0, 5, 100])
def test_hardest_equals_a_loop(ratio, min_kept):
    loss, valid, _ = losses_with_ties()
    candidates = valid.nonzero().flatten().tolist()
    count = max(math.ceil(Fraction(ratio) * len(candidates)), min_kept)
    expected = mask_of(chosen_by_loop(loss.tolist(), candidates, count), len(loss))
    kept = hardest(loss, keep_ratio=float(ratio), min_kept=min_kept, valid=valid)
    assert kept.equal(expected)


@pytest.mark.parametrize("ratio", ["0", "0.5", "2.3", "3", "100"])
@pytest.mark.parametrize("min_kept", [0, 20, 100])
def test_hardest_negatives_equal_a_loop(ratio, min_kept):
    loss, valid, positive = losses_with_ties(1)
    positives = (positive & valid).nonzero().flatten().tolist()
    negatives = (~positive & valid).nonzero().flatten().tolist()
    count = max(math.floor(Fraction(ratio) * len(positives)), min_kept - len(positives))
    chosen = chosen_by_loop(loss.tolist(), negatives, count) | set(positives)
    kept = hardest_negatives(loss, positive, negative_ratio=float(ratio), min_kept=min_kept, valid=valid)
    assert kept.equal(mask_of(chosen, len(loss)))


def test_shares_are_exact_whatever_their_float():
    for ratio in ("0.1", "0.2", "0.3", "0.6", "0.7"):
        for size in (1, 10, 25, 50, 999):
            kept = hardest(torch.rand(size), keep_ratio=float(ratio))
            assert kept.sum() == math.ceil(Fraction(ratio) * size), (ratio, size)
    kept = hardest_negatives(torch.rand(200), torch.arange(200) < 30, negative_ratio=2.1)
    assert kept.sum() == 30 + 63


def test_images_compete_only_within_themselves():
    loss, valid, positive = (torch.stack(each) for each in zip(*map(losses_with_ties, range(3)), strict=True))
    valid[2] = False
    shares = hardest(loss, keep_ratio=0.3, valid=valid, over="image")
    negatives = hardest_negatives(loss, positive, valid=valid, over="image")
    for index in range(3):
        assert shares[index].equal(hardest(loss[index], keep_ratio=0.3, valid=valid[index]))
        assert negatives[index].equal(hardest_negatives(loss[index], positive[index], valid=valid[index]))
    assert hardest(loss.view(3, 8, 5), keep_ratio=0.3, valid=valid.view(3, 8, 5), over="image").equal(
        shares.view(3, 8, 5)
    )


def test_mean_is_over_what_is_kept():
    logits, target = torch.randn(10, 4, dtype=torch.float64), torch.randint(0, 4, (10,))
    target[3] = -100
    logits.requires_grad_()
    loss = OHEMLoss(CrossEntropyLoss(), keep_ratio=0.3)(logits, target)
    each = F.cross_entropy(logits, target, reduction="none")
    torch.testing.assert_close(loss, each.sort(descending=True).values[:3].mean())  # a third of 9
    loss.backward()
    assert (logits.grad != 0).any(1).sum() == 3


def test_values_of_one_element_are_kept_together():
    logits, target = torch.randn(2, 3, 5), torch.rand(2, 3, 5)
    target[0, 1, 2] = 255  # one class of a pixel is unknown, and the others are wrong
    logits[0, :, 2], target[0, ::2, 2] = 9, 0
    each = BCELoss(ignore_index=255)(logits, target, reduction="none")
    kept = hardest(each.sum(1), keep_ratio=0.5)
    loss = OHEMLoss(BCELoss(ignore_index=255), keep_ratio=0.5)
    torch.testing.assert_close(loss(logits, target, reduction="none"), each * kept.unsqueeze(1))
    assert kept[0, 2]
    values = (kept.unsqueeze(1) & (target != 255)).sum()
    torch.testing.assert_close(loss(logits, target), (each * kept.unsqueeze(1)).sum() / values)


def test_background_stands_beside_the_classes_of_sigmoids():
    logits, target = torch.randn(50, 4), torch.randint(0, 5, (50,)).clamp(min=1)
    target[torch.randperm(50)[:35]] = 4
    wrapped = FocalLoss(use_sigmoid=True)
    each = wrapped(logits, target, reduction="none")
    kept = hardest_negatives(each.sum(1), target != 4, negative_ratio=1)
    loss = OHEMLoss(wrapped, negative_ratio=1, background=4)
    assert loss.use_sigmoid
    torch.testing.assert_close(loss(logits, target), each[kept].mean())


def test_what_weighs_nothing_is_never_kept():
    logits, target = torch.randn(8, 3), torch.randint(0, 3, (8,))
    weight = torch.tensor([0.0, 1, 2, 1, 0, 1, 3, 0.5])
    each = F.cross_entropy(logits, target, reduction="none")
    for loss in (OHEMLoss(CrossEntropyLoss(), keep_ratio=1.0), OHEMLoss(CrossEntropyLoss(), 0.0, min_kept=99)):
        torch.testing.assert_close(loss(logits, target, weight=weight), (each * weight).sum() / 6)
    # Three of six: the hardest by what they add.
    kept = (each * weight).topk(3).values
    loss = OHEMLoss(CrossEntropyLoss(), keep_ratio=0.5)
    torch.testing.assert_close(loss(logits, target, weight=weight), kept.mean())


def test_around_losses_of_boxes():
    boxes = torch.rand(9, 2, 2).cumsum(1).flatten(1)
    target = torch.rand(9, 2, 2).cumsum(1).flatten(1)
    weight = (torch.arange(9) != 2).float().unsqueeze(1).expand(9, 4)
    each = BoxIoULoss()(boxes, target, reduction="none")
    each[2] = -1
    mined = OHEMLoss(BoxIoULoss(), keep_ratio=0.5)(boxes, target, weight=weight)
    torch.testing.assert_close(mined, each.topk(4).values.mean())
    each = L1Loss()(boxes, target, reduction="none")
    mined = OHEMLoss(L1Loss(), keep_ratio=0.2)(boxes, target)
    torch.testing.assert_close(mined, each[each.sum(1).topk(2).indices].mean())


def test_nan_is_not_hidden():
    logits = torch.zeros(4, 2)
    logits[1] = math.nan
    assert OHEMLoss(CrossEntropyLoss(), keep_ratio=0.25)(logits, torch.zeros(4, dtype=torch.long)).isnan()


@pytest.mark.openmmlab
@pytest.mark.parametrize("positives", [0, 7])
def test_equals_mmdets_ssd_head(positives):
    from mmdet.models.dense_heads import SSDHead

    generator = torch.Generator().manual_seed(5)
    scores, labels = torch.randn(100, 21, generator=generator), torch.full((100,), 20)
    labels[:positives] = torch.randint(0, 20, (positives,), generator=generator)
    weight = torch.ones(100)
    weight[50:60] = 0  # anchors outside of the image
    head = SimpleNamespace(num_classes=20, reg_decoded_bbox=False, train_cfg={"neg_pos_ratio": 3, "smoothl1_beta": 1.0})
    nothing = torch.zeros(100, 4)
    theirs, _ = SSDHead.loss_by_feat_single(
        head, scores, nothing, nothing, labels, weight, nothing, nothing, avg_factor=max(positives, 1)
    )
    loss = OHEMLoss(CrossEntropyLoss(), negative_ratio=3, background=20)
    torch.testing.assert_close(loss(scores, labels, weight=weight, divisor=max(positives, 1)), theirs.squeeze(0))


def test_equals_torchvisions_ssd():
    ssd = pytest.importorskip("torchvision.models.detection.ssd")
    generator = torch.Generator().manual_seed(5)
    matched = torch.full((2, 50), -1)
    matched[0, :4], matched[1, 10:12] = 0, 1
    logits = torch.randn(2, 50, 6, generator=generator)
    boxes = torch.tensor([[0.0, 0, 1, 1], [0.0, 0, 2, 2]])
    targets = [{"boxes": boxes, "labels": torch.tensor([1, 3])}, {"boxes": boxes, "labels": torch.tensor([5, 2])}]
    outputs = {"bbox_regression": torch.zeros(2, 50, 4), "cls_logits": logits}
    stub = SimpleNamespace(
        neg_to_pos_ratio=3, box_coder=SimpleNamespace(encode_single=lambda matched, anchors: matched)
    )
    theirs = ssd.SSD.compute_loss(stub, targets, outputs, [torch.zeros(50, 4)] * 2, list(matched))
    labels = torch.zeros(2, 50, dtype=torch.long)
    labels[0, :4], labels[1, 10:12] = 1, 2
    loss = OHEMLoss(CrossEntropyLoss(), negative_ratio=3, background=0, over="image")
    torch.testing.assert_close(loss(logits.transpose(1, 2), labels, divisor=6), theirs["classification"])


@pytest.mark.openmmlab
def test_equals_mmsegs_pixel_sampler():
    from mmseg.models.losses import CrossEntropyLoss as Theirs
    from mmseg.structures.sampler import OHEMPixelSampler

    logits, target = torch.randn(2, 4, 6, 5), torch.randint(0, 4, (2, 6, 5))
    target[0, :2] = 255
    context = SimpleNamespace(ignore_index=255, loss_decode=Theirs())
    weight = OHEMPixelSampler(context, min_kept=7).sample(logits, target.unsqueeze(1))
    each = F.cross_entropy(logits, target, ignore_index=255, reduction="none")
    loss = OHEMLoss(CrossEntropyLoss(ignore_index=255), keep_ratio=0, min_kept=14)
    torch.testing.assert_close(loss(logits, target, reduction="none"), each * weight)


def test_wrong_options_are_named():
    logits, target = torch.randn(3, 4, 5), torch.randint(0, 4, (3, 5))
    wrapped = CrossEntropyLoss()
    with pytest.raises(TypeError, match="wraps a loss module, not dict"):
        OHEMLoss({"type": "CrossEntropyLoss"}, keep_ratio=0.5)
    with pytest.raises(ValueError, match="exclude each other"):
        OHEMLoss(wrapped, keep_ratio=0.5, negative_ratio=3, background=0)
    with pytest.raises(ValueError, match="exclude each other: give one"):
        OHEMLoss(wrapped)
    with pytest.raises(ValueError, match="belong together"):
        OHEMLoss(wrapped, negative_ratio=3)
    with pytest.raises(ValueError, match=r"keep_ratio must be in \[0, 1\], not 1.5"):
        OHEMLoss(wrapped, keep_ratio=1.5)
    with pytest.raises(ValueError, match="negative_ratio must be at least 0, not -1"):
        OHEMLoss(wrapped, negative_ratio=-1, background=0)
    with pytest.raises(ValueError, match="min_kept must be at least 0, not -2"):
        OHEMLoss(wrapped, keep_ratio=0.5, min_kept=-2)
    with pytest.raises(ValueError, match="unknown over 'images'"):
        OHEMLoss(wrapped, keep_ratio=0.5, over="images")
    with pytest.raises(ValueError, match=r"does not fit over='image'.* use over='batch'"):
        OHEMLoss(wrapped, keep_ratio=0.5, over="image")(logits[:, :, 0], target[:, 0])
    with pytest.raises(ValueError, match="does not fit negative_ratio: expected class indices"):
        OHEMLoss(BCELoss(), negative_ratio=3, background=0)(logits, torch.rand_like(logits))
    with pytest.raises(ValueError, match="OHEMLoss needs a loss per element"):
        OHEMLoss(DiceLoss(), keep_ratio=0.5)(logits, target)
    with pytest.raises(ValueError, match=r"positive .* does not fit"):
        hardest_negatives(torch.rand(4), torch.ones(3, dtype=torch.bool))
