"""Box losses against torchvision, mmdet, formulas one box at a time, and what has to hold for any of them."""

import importlib
import math

import pytest
import torch
from helpers import peak_memory

from cvplugins.losses import box_iou_loss, xywh_to_xyxy

KINDS = ("iou", "giou", "diou", "ciou", "eiou", "siou", "alpha_iou")
every_kind = pytest.mark.parametrize("kind", KINDS)


def random_boxes(size=500, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(2, size, 2, generator=generator, dtype=dtype) * 40
    boxes = torch.cat([corner, corner + 1 + torch.rand(2, size, 2, generator=generator, dtype=dtype) * 40], dim=-1)
    boxes[0, : size // 5] = boxes[1, : size // 5] + torch.randn(size // 5, 4, generator=generator, dtype=dtype) / 2
    return boxes


def formula(box, target, kind):
    """The papers' formulas in plain numbers."""
    left, top, right, bottom = box
    left2, top2, right2, bottom2 = target
    width, height, width2, height2 = right - left, bottom - top, right2 - left2, bottom2 - top2
    overlap = max(min(right, right2) - max(left, left2), 0) * max(min(bottom, bottom2) - max(top, top2), 0)
    union = width * height + width2 * height2 - overlap
    iou = overlap / union
    across, down = (left2 + right2 - left - right) / 2, (top2 + bottom2 - top - bottom) / 2
    wide, high = max(right, right2) - min(left, left2), max(bottom, bottom2) - min(top, top2)
    diou = 1 - iou + (across**2 + down**2) / (wide**2 + high**2)
    if kind == "eiou":
        return diou + ((width - width2) / wide) ** 2 + ((height - height2) / high) ** 2
    if kind == "alpha_iou":
        return 1 - iou**3
    if kind == "siou":
        sine = abs(down) / math.hypot(across, down)
        angle = 1 - 2 * math.sin(math.asin(sine) - math.pi / 4) ** 2
        distance = sum(1 - math.exp(-(2 - angle) * rho) for rho in ((across / wide) ** 2, (down / high) ** 2))
        shape = sum((1 - math.exp(-abs(a - b) / max(a, b))) ** 4 for a, b in ((width, width2), (height, height2)))
        return 1 - iou + (distance + shape) / 2
    raise AssertionError(kind)


@pytest.mark.parametrize("kind", ["eiou", "siou", "alpha_iou"])
def test_equals_the_papers_formula(kind):
    boxes, target = random_boxes()
    expected = [formula(*pair, kind) for pair in zip(boxes.tolist(), target.tolist(), strict=True)]
    loss = box_iou_loss(boxes, target, kind=kind, reduction="none")
    torch.testing.assert_close(loss, torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("kind", "name"),
    [("giou", "generalized_box_iou_loss"), ("diou", "distance_box_iou_loss"), ("ciou", "complete_box_iou_loss")],
)
def test_equals_torchvision(kind, name):
    ops = pytest.importorskip("torchvision.ops")
    boxes, target = random_boxes()
    first, second = boxes.clone().requires_grad_(), boxes.clone().requires_grad_()
    ours = box_iou_loss(first, target, kind=kind, reduction="none")
    theirs = getattr(ops, name)(second, target, reduction="none")
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    ours.sum().backward()
    theirs.sum().backward()
    torch.testing.assert_close(first.grad, second.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.openmmlab
@pytest.mark.parametrize(
    ("kind", "name", "options"),
    [
        ("iou", "iou_loss", {"mode": "linear"}),
        ("giou", "giou_loss", {}),
        ("diou", "diou_loss", {}),
        ("siou", "siou_loss", {"neg_gamma": True}),
    ],
)
def test_equals_mmdet(kind, name, options):
    iou_loss = importlib.import_module("mmdet.models.losses.iou_loss")  # a function there has the module's name
    boxes, target = random_boxes(dtype=torch.float32)
    theirs = getattr(iou_loss, name)(boxes, target, reduction="none", **options)
    torch.testing.assert_close(box_iou_loss(boxes, target, kind=kind, reduction="none"), theirs, rtol=1e-4, atol=1e-4)


@every_kind
def test_perfect_boxes_cost_nothing_and_stay(kind):
    boxes = random_boxes()[0].requires_grad_()
    loss = box_iou_loss(boxes, boxes.detach(), kind=kind, reduction="none")
    torch.testing.assert_close(loss, torch.zeros_like(loss), atol=1e-6, rtol=0)
    loss.sum().backward()
    assert boxes.grad.isfinite().all()


@every_kind
def test_boxes_far_apart_are_pulled_together(kind):
    """The reason for every kind but iou and alpha_iou, whose gradient is 0 there."""
    boxes = torch.tensor([[0.0, 0, 1, 1]]).requires_grad_()
    box_iou_loss(boxes, torch.tensor([[8.0, 6, 9, 8]]), kind=kind).backward()
    pulled = -boxes.grad.view(2, 2).sum(0) @ torch.tensor([8.0, 6.5])  # along the line between the centres
    assert pulled > 0 if kind not in ("iou", "alpha_iou") else pulled == 0


def test_giou_is_iou_where_the_enclosing_box_is_the_union():
    outer, inner = torch.tensor([[0.0, 0, 4, 4]]), torch.tensor([[1.0, 1, 2, 3]])
    torch.testing.assert_close(box_iou_loss(outer, inner, kind="giou"), box_iou_loss(outer, inner, kind="iou"))


@every_kind
def test_degenerate_boxes_give_finite_losses_and_gradients(kind):
    points = torch.tensor([[5.0, 5, 5, 5], [1, 2, 3, 2], [9, 9, 2, 2], [0, 0, 1e-30, 1e-30], [0, 0, 1e15, 1e15]])
    for target in (points, points.flip(0), torch.tensor([[0.0, 0, 4, 4]]).expand(5, 4)):
        boxes = points.clone().requires_grad_()
        loss = box_iou_loss(boxes, target, kind=kind, reduction="none")
        loss.sum().backward()
        assert loss.isfinite().all()
        assert boxes.grad.isfinite().all()


def nasty_boxes():
    """Swapped, empty, thin, tiny and huge boxes, and some of any order of ends; every pair of them, (N * N, 4)."""
    fixed = [
        *([0, 0, 10, 10], [10, 10, 0, 0], [10, 0, 0, 10], [100, 100, 20, 40], [20, 40, -30, -50], [5, 5, 4.9999999, 6]),
        *([5, 5, 5, 5], [0, 0, 0, 10], [1, 2, 3, 2], [0, 0, 0, 0], [0, 0, -1e-7, -1e-7], [0, 0, 1e-30, 1e-30]),
        *([0, 0, 6e4, 6e4], [0, 0, 1e15, 1e15], [0, 0, 1e19, 1e25], [0, 0, 1e38, 1e-38], [-3e38, -3e38, 3e38, 3e38]),
        *([3e38, 3e38, -3e38, -3e38], [1e10, 1e10, 1e10 + 1e4, 1e10 + 1e4]),
    ]
    generator = torch.Generator().manual_seed(0)
    boxes = torch.tensor(fixed, dtype=torch.float64)
    boxes = torch.cat([boxes, torch.randn(10, 4, generator=generator, dtype=torch.float64) * 50])
    return boxes.repeat_interleave(len(boxes), 0), boxes.repeat(len(boxes), 1)


@every_kind
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_swapped_empty_and_huge_boxes_give_finite_losses_and_gradients(kind, dtype):
    """The limiting cases: no loss exceeds what two boxes that have nothing in common can cost, and 0 weighs nothing."""
    most = torch.finfo(dtype).max
    boxes, target = (each.clamp(-most, most).to(dtype) for each in nasty_boxes())
    loss = box_iou_loss(boxes.requires_grad_(), target, kind=kind, reduction="none")
    assert loss.isfinite().all()
    assert loss.min() >= -1e-5
    # EIoU's differences of size are at most twice the enclosing box, SIoU's shares and CIoU's ratio at most 1.
    assert loss.max() <= {"iou": 1, "giou": 2, "diou": 2, "ciou": 3, "eiou": 10, "siou": 3, "alpha_iou": 1}[kind]
    (gradient,) = torch.autograd.grad(loss.sum(), boxes)
    assert gradient.isfinite().all()
    unweighted = box_iou_loss(boxes, target, kind=kind, weight=torch.zeros(len(boxes)), divisor=0)
    (gradient,) = torch.autograd.grad(unweighted, boxes)
    assert unweighted == 0
    assert (gradient == 0).all()


@every_kind
def test_a_swapped_prediction_is_empty(kind):
    """As mmdet's and pycocotools' overlaps have it, it is not found, whatever lies between its ends."""
    target = torch.tensor([[0.0, 0, 10, 10]])
    for swapped in ([10.0, 10, 0, 0], [10.0, 0, 0, 10], [0.0, 10, 10, 0]):
        assert box_iou_loss(torch.tensor([swapped]), target, kind=kind) >= 1


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "ciou"])
def test_gradient_of_swapped_boxes_is_the_slope(kind):
    """Central differences in float64 are the oracle, but for CIoU, whose trade-off factor counts as constant."""
    generator = torch.Generator().manual_seed(1)
    boxes, target = torch.randn(2, 60, 4, generator=generator, dtype=torch.float64) * 20
    assert ((boxes[:, 2:] < boxes[:, :2]).any(1) & (target[:, 2:] > target[:, :2]).any(1)).sum() > 30

    def call(moved):
        return box_iou_loss(moved, target, kind=kind, reduction="none")

    assert torch.autograd.gradcheck(call, boxes.requires_grad_(), eps=1e-6, atol=1e-5)


@every_kind
def test_infinite_and_undefined_predictions_stay_visible(kind):
    """A diverged model has to be seen: NaN, not a loss like another."""
    boxes = torch.tensor([[0.0, 0, math.inf, 5], [math.nan, 0, 5, 5], [0, 0, 5, 5]])
    loss = box_iou_loss(boxes, torch.tensor([[0.0, 0, 5, 5]]).expand(3, 4), kind=kind, reduction="none")
    assert loss.isnan().tolist() == [True, True, False]


@every_kind
def test_moving_both_boxes_changes_nothing(kind):
    boxes, target = random_boxes()
    moved = box_iou_loss(boxes + 7, target + 7, kind=kind)
    torch.testing.assert_close(moved, box_iou_loss(boxes, target, kind=kind))


def test_weight_per_coordinate_counts_as_its_mean():
    boxes, target = random_boxes(6)
    weight = torch.rand(6, 4, dtype=torch.float64)
    expected = box_iou_loss(boxes, target, reduction="none") * weight.mean(1)
    torch.testing.assert_close(box_iou_loss(boxes, target, weight=weight, reduction="none"), expected)


def test_centre_and_size_become_corners():
    ops = pytest.importorskip("torchvision.ops")
    boxes = random_boxes(5)[0]
    torch.testing.assert_close(xywh_to_xyxy(boxes), ops.box_convert(boxes, "cxcywh", "xyxy"))


def test_wrong_arguments_are_named():
    boxes, target = random_boxes(3)
    with pytest.raises(ValueError, match="unknown kind 'giuo'; use one of 'iou', 'giou'"):
        box_iou_loss(boxes, target, kind="giuo")
    with pytest.raises(ValueError, match=r"target \(3, 3\) does not fit boxes \(3, 3\)"):
        box_iou_loss(boxes[:, :3], target[:, :3])


def test_targets_may_be_integers():
    boxes, target = torch.tensor([[0.0, 0.5, 2.0, 3.0]], requires_grad=True), torch.tensor([[0, 1, 3, 4]])
    torch.testing.assert_close(box_iou_loss(boxes, target), box_iou_loss(boxes, target.float()))


def test_weight_that_is_neither_per_box_nor_per_coordinate_is_named():
    with pytest.raises(ValueError, match=r"weight \(2, 3\) does not fit"):
        box_iou_loss(torch.rand(2, 4), torch.rand(2, 4), weight=torch.rand(2, 3))


@every_kind
def test_pieces_give_what_the_whole_gives(kind, monkeypatch):
    boxes, target = random_boxes()
    whole, pieces = boxes.clone().requires_grad_(), boxes.clone().requires_grad_()
    box_iou_loss(whole, target, kind=kind).backward()
    monkeypatch.setattr("cvplugins.losses.chunks.VALUES_AT_ONCE", 1 << 10)
    box_iou_loss(pieces, target, kind=kind).backward()
    torch.testing.assert_close(pieces.grad, whole.grad)


@every_kind
def test_peak_memory_stays_near_the_size_of_the_boxes(kind):
    """What is kept, its product with what comes back, and the losses with that: 2.5 times, and a piece beside it."""
    boxes, target = random_boxes(size=100_000, dtype=torch.float32)
    boxes.requires_grad_()
    peak = peak_memory(lambda: box_iou_loss(boxes, target, kind=kind).backward())
    assert boxes.nbytes <= peak <= 3 * boxes.nbytes
