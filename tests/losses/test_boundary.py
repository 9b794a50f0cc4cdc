"""Boundary losses against their papers' formulas in float64, MONAI's, each other, and a bound on memory."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage

from cvplugins.losses import (
    BoundaryCrossEntropyLoss,
    BoundaryLoss,
    CrossEntropyLoss,
    HausdorffLoss,
    boundary_loss,
    boundary_weights,
    hausdorff_loss,
    signed_distance_maps,
)


def scores(shape=(3, 12, 14), classes=4, scale=4.0):
    """Labels with connected regions, and logits that find some of them."""
    random = np.random.default_rng(0)
    noise = ndimage.gaussian_filter(random.standard_normal((classes, *shape)), (0, 0, *[2] * (len(shape) - 1)))
    target = torch.from_numpy(noise.argmax(0))
    logits = torch.from_numpy(random.standard_normal((shape[0], classes, *shape[1:])))
    return logits + scale * F.one_hot(target.roll(2, 1), classes).movedim(-1, 1), target


def masks():
    """A class each that overlap, one of them empty in the first sample and full in the second."""
    logits, target = scores()
    dense = torch.stack([target < 2, target % 2 == 0, target == 3, target > 1], dim=1)
    dense[0, 1], dense[1, 1] = False, True
    return logits, dense.to(torch.float64)


def one_hot_of(target, classes=4):
    return F.one_hot(target.masked_fill(target == 255, classes), classes + 1).movedim(-1, 1)[:, :classes].bool()


def field(inside, ignored):
    """Distance to the nearest pixel of the other side, one mask at a time."""
    found = torch.zeros(inside.shape, dtype=torch.float64)
    for sample, index in np.ndindex(*inside.shape[:2]):
        region, skip = inside[sample, index].numpy(), ignored[sample].numpy()
        other = ~region & ~skip
        if region.any() and other.any():
            distance = np.where(region, ndimage.distance_transform_edt(~other), ndimage.distance_transform_edt(~region))
            found[sample, index] = torch.from_numpy(distance * ~skip)
    return found


def gradients(*losses, logits):
    leaves = [logits.clone().requires_grad_() for _ in losses]
    values = [loss(leaf) for loss, leaf in zip(losses, leaves, strict=True)]
    for value in values:
        value.backward()
    return [(value.detach(), leaf.grad) for value, leaf in zip(values, leaves, strict=True)]


@pytest.fixture(params=[1 << 22, 200], ids=["whole", "portions"], autouse=True)
def _portions(request, monkeypatch):
    monkeypatch.setattr("cvplugins.losses.distance.VALUES_AT_ONCE", request.param)


@pytest.mark.parametrize("shape", [(3, 12, 14), (2, 6, 7, 8), (2, 1, 30), (2, 30, 1)])
@pytest.mark.parametrize("ignoring", [False, True])
def test_boundary_equals_its_formula(shape, ignoring):
    logits, target = scores(shape)
    if ignoring:
        target[:, :, : shape[2] // 3] = 255
    valid = target != 255
    weight, class_weight = torch.rand(shape, dtype=torch.float64), [0.0, 1.0, 2.0, 0.5]
    maps = signed_distance_maps(target, 4)

    def formula(scores):
        factor = torch.tensor(class_weight).view(1, -1, *[1] * (len(shape) - 1)) * maps
        each = (scores.softmax(1) * factor).mean(1) * weight * valid
        return each.sum() / valid.sum()

    ours, theirs = gradients(
        lambda scores: boundary_loss(scores, target, class_weight=class_weight, weight=weight), formula, logits=logits
    )
    torch.testing.assert_close(ours, theirs)


def test_boundary_of_two_classes_is_kervadecs():
    """``SurfaceLoss(idc=[1])`` of LIVIAETS/boundary-loss: its mean is over one class, ours over both."""
    logits, target = scores(classes=2)
    product = torch.einsum("bwh,bwh->bwh", logits.softmax(1)[:, 1], signed_distance_maps(target, 2)[:, 1].double())
    torch.testing.assert_close(boundary_loss(logits, target, class_weight=[0.0, 2.0]), product.mean())


def test_a_perfect_prediction_is_the_minimum_of_boundary():
    logits, target = scores()
    perfect = (one_hot_of(target).double() * 2 - 1) * 1e3
    maps = signed_distance_maps(target, 4)
    lowest = boundary_loss(perfect, target)
    assert lowest < 0
    torch.testing.assert_close(lowest, maps.amin(1).mean().double() / 4)
    assert lowest < boundary_loss(logits, target) < boundary_loss(-perfect, target)


def test_normalised_distances_are_shares_of_the_diagonal():
    logits, target = scores()
    expected = boundary_loss(logits, target) / math.hypot(12, 14)
    torch.testing.assert_close(boundary_loss(logits, target, normalise=True), expected)
    expected = hausdorff_loss(logits, target) / (12**2 + 14**2)
    torch.testing.assert_close(hausdorff_loss(logits, target, normalise=True), expected)


@pytest.mark.parametrize("ignoring", [False, True])
def test_sigmoids_equal_their_formula(ignoring):
    logits, target = masks()
    ignored = torch.zeros_like(target, dtype=torch.bool)
    if ignoring:
        ignored[:, :, :4] = True  # for all classes, and one element more
        ignored[2, 0, 7, 7] = True
        target[ignored] = 255
    inside = target == 1
    distances = torch.stack([field(inside[:, [index]], ignored[:, index]) for index in range(4)], 1)[:, :, 0]
    signed = torch.where(inside & (distances > 0), 1 - distances, distances)
    of_predicted = [field((logits > 0)[:, [index]] & ~ignored[:, [index]], ignored[:, index]) for index in range(4)]
    both = distances**2 + torch.stack(of_predicted, 1)[:, :, 0] ** 2
    pixels = (~ignored).any(1).sum()
    ours, theirs = gradients(
        lambda scores: boundary_loss(scores, target, mode="multilabel"),
        lambda scores: (scores.sigmoid() * signed).mean(1).sum() / pixels,
        logits=logits,
    )
    torch.testing.assert_close(ours, theirs)
    ours, theirs = gradients(
        lambda scores: hausdorff_loss(scores, target, mode="multilabel"),
        lambda scores: ((scores.sigmoid() - inside.double()) ** 2 * both).mean(1).sum() / pixels,
        logits=logits,
    )
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("loss", [boundary_loss, hausdorff_loss])
def test_binary_is_multilabel_with_one_class(loss):
    logits, target = masks()
    expected = loss(logits[:, :1], target[:, :1], mode="multilabel")
    for dtype in (torch.float64, torch.bool, torch.int64):
        torch.testing.assert_close(loss(logits[:, 0], target[:, 0].to(dtype), mode="binary"), expected)


@pytest.mark.parametrize("alpha", [1.0, 2.0])
@pytest.mark.parametrize("one_sided", [False, True])
@pytest.mark.parametrize("ignoring", [False, True])
def test_hausdorff_equals_its_formula(alpha, one_sided, ignoring):
    logits, target = scores()
    if ignoring:
        target[:, :, :4] = 255
    target[0][target[0] == 2] = 1  # absent, and yet predicted
    ignored = target == 255
    true = one_hot_of(target)
    predicted = (logits.softmax(1) > 0.5) & ~ignored.unsqueeze(1)
    maps = field(true, ignored) ** alpha + (0 if one_sided else field(predicted, ignored) ** alpha)
    assert predicted[0, 2].any()
    ours, theirs = gradients(
        lambda scores: hausdorff_loss(scores, target, alpha=alpha, one_sided=one_sided),
        lambda scores: ((scores.softmax(1) - true.double()) ** 2 * maps).mean(1).sum() / (~ignored).sum(),
        logits=logits,
    )
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("mode", ["multiclass", "multilabel"])
def test_hausdorff_equals_monais(mode):
    monai = pytest.importorskip("monai.losses.hausdorff_loss")
    logits, target = scores() if mode == "multiclass" else masks()
    one_hot = one_hot_of(target).double() if mode == "multiclass" else target
    activation = {"softmax": True} if mode == "multiclass" else {"sigmoid": True}
    theirs = monai.HausdorffDTLoss(include_background=True, **activation)
    ours, theirs = gradients(
        lambda scores: hausdorff_loss(scores, target, mode=mode), lambda scores: theirs(scores, one_hot), logits=logits
    )
    torch.testing.assert_close(ours, theirs)


def test_hausdorff_of_a_perfect_prediction_is_nothing_and_grows_with_the_distance():
    target = torch.zeros(1, 3, 40, dtype=torch.long)
    target[:, :, :10] = 1
    perfect = (one_hot_of(target, 2).float() * 2 - 1) * 1e3
    assert hausdorff_loss(perfect, target) == 0
    values = []
    for place in (12, 20, 30):
        wrong = perfect.clone()
        wrong[:, :, 1, place] *= -1
        values.append(hausdorff_loss(wrong, target).item())
    assert values == sorted(values)


def test_boundary_weights_equal_their_formula():
    target = scores((2, 12, 14))[1]
    expected = torch.ones(target.shape)
    for sample, label in enumerate(target):
        edge = []
        for row, column in np.ndindex(*label.shape):
            beside = ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1))
            on_grid = [place for place in beside if 0 <= place[0] < 12 and 0 <= place[1] < 14]
            if any(label[place] != label[row, column] for place in on_grid):
                edge.append((row, column))
        for place in np.ndindex(*label.shape):
            nearest = min(math.dist(place, each) for each in edge)
            expected[sample][place] += 7 * math.exp(-(nearest**2) / (2 * 3**2))
    torch.testing.assert_close(boundary_weights(target, boundary_weight=7, sigma=3), expected)


def test_a_boundary_in_a_strip_of_ignored_pixels_lies_in_its_middle():
    target = torch.tensor([0, 0, 0, 255, 255, 255, 255, 1, 1]).expand(2, 5, 9)
    distance = torch.tensor([4.0, 3, 2, 1, 0, 0, 1, 2, 3])
    expected = (1 + 10 * (-(distance**2) / 50).exp()).expand(2, 5, 9)
    torch.testing.assert_close(boundary_weights(target), expected)
    torch.testing.assert_close(boundary_weights(target.transpose(1, 2)), expected.transpose(1, 2))


def test_boundary_cross_entropy_is_weighted_cross_entropy():
    logits, target = scores()
    target[:, :, :4] = 255
    options = {"class_weight": [1.0, 2.0, 0.5, 3.0], "ignore_index": 255}
    plain = CrossEntropyLoss(**options)
    torch.testing.assert_close(BoundaryCrossEntropyLoss(0.0, **options)(logits, target), plain(logits, target))
    each = F.cross_entropy(
        logits, target, torch.tensor(options["class_weight"]).double(), ignore_index=255, reduction="none"
    )
    expected = (each * boundary_weights(target)).sum() / (target != 255).sum()
    torch.testing.assert_close(BoundaryCrossEntropyLoss(**options)(logits, target), expected)
    uniform = torch.ones_like(target)
    torch.testing.assert_close(BoundaryCrossEntropyLoss()(logits, uniform), CrossEntropyLoss()(logits, uniform))


def test_a_border_to_ignored_pixels_is_no_boundary():
    target = torch.zeros(1, 6, 7, dtype=torch.long)
    target[:, 2:] = 255
    assert (boundary_weights(target) == 1).all()
    logits = torch.randn(1, 3, 6, 7, requires_grad=True)
    for loss in (boundary_loss, lambda *pair: hausdorff_loss(*pair, one_sided=True)):
        assert loss(logits, target) == 0


EVERY = [BoundaryLoss(), HausdorffLoss(), BoundaryCrossEntropyLoss()]


@pytest.mark.parametrize("loss", EVERY, ids=lambda loss: type(loss).__name__)
def test_ignored_pixels_never_move_the_loss(loss):
    logits, target = scores()
    target[:, :4] = 255
    expected, cut = gradients(
        lambda scores: loss(scores, target), lambda scores: loss(scores[:, :, 4:], target[:, 4:]), logits=logits
    )
    torch.testing.assert_close(expected, cut)
    for change in (0, 100):
        moved = logits.clone()
        moved[:, 1, :4] += change
        torch.testing.assert_close(loss(moved, target), expected[0])


@pytest.mark.parametrize("ignore_index", [-1, 4, 0])
@pytest.mark.parametrize("loss", EVERY, ids=lambda loss: type(loss).__name__)
def test_any_index_can_be_ignored(loss, ignore_index):
    logits, target = scores()
    target[target == 0] = 255
    renamed = target.masked_fill(target == 255, ignore_index)
    torch.testing.assert_close(loss(logits, renamed, ignore_index=ignore_index), loss(logits, target))


@pytest.mark.parametrize("loss", EVERY, ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize("grid", [(1, 1), (1, 6), (6, 1), (0, 6), (2, 1, 3)])
def test_thin_and_empty_grids(loss, grid):
    logits = torch.randn(2, 3, *grid, requires_grad=True)
    target = torch.randint(0, 3, (2, *grid), generator=torch.Generator().manual_seed(0))
    value = loss(logits, target)
    value.backward()
    assert value.isfinite()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("loss", EVERY, ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize("grid", [(), (9,), (2, 2, 2, 2)])
def test_what_is_no_grid_is_named(loss, grid):
    with pytest.raises(ValueError, match=rf"{len(grid)} axes of pixels; distances take a grid of 2 or 3"):
        loss(torch.zeros(2, 3, *grid), torch.zeros(2, *grid, dtype=torch.long))


def test_wrong_options_are_named():
    logits, target = scores()
    for loss in (BoundaryLoss, HausdorffLoss):
        with pytest.raises(ValueError, match="unknown mode 'binray'; use one of 'multiclass'"):
            loss(mode="binray")
        with pytest.raises(ValueError, match=r"does not fit logits .* in mode 'multilabel'"):
            loss(mode="multilabel")(logits, target)
        with pytest.raises(ValueError, match="class_weight holds 2 numbers"):
            loss(class_weight=[1.0, 2.0])(logits, target)
    with pytest.raises(ValueError, match="alpha must be positive, not 0"):
        HausdorffLoss(alpha=0)
    with pytest.raises(ValueError, match="sigma must be positive, not -1"):
        BoundaryCrossEntropyLoss(sigma=-1)


def test_a_cache_changes_nothing():
    logits, target = scores()
    loss = BoundaryLoss(cache_size=4)
    for _ in range(3):
        ours, theirs = gradients(
            lambda scores: loss(scores, target), lambda scores: boundary_loss(scores, target), logits=logits
        )
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert (loss.cache.hits, loss.cache.misses) == (6, 3)


def peak_memory(loss, logits, target):
    """What torch allocates on the CPU, summed up, over the size of the logits."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        loss(logits, target).backward()
    sizes = [event.nbytes() for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(itertools.accumulate(sizes)) / logits.nbytes


@pytest.mark.parametrize(("classes", "bound"), [(8, 1.5), (150, 2.7)])
@pytest.mark.parametrize("loss", [BoundaryLoss(class_weight=[1.0] * 150, normalise=True), HausdorffLoss()])
def test_peak_memory_stays_near_the_size_of_the_logits(loss, classes, bound, monkeypatch):
    """Above one softmax there are the maps of the classes that occur: few of 150, as in photographs, or all."""
    monkeypatch.setattr("cvplugins.losses.distance.VALUES_AT_ONCE", 1 << 16)  # as small to these logits as to real ones
    logits = torch.randn(2, 150, 64, 64, requires_grad=True)
    target = torch.randint(0, classes, (2, 64, 64))
    assert 1 <= peak_memory(loss, logits, target) <= bound


def test_weights_of_pixels_need_little_memory():
    logits = torch.randn(2, 150, 64, 64, requires_grad=True)
    target = torch.randint(0, 150, (2, 64, 64))
    plain, weighted = (peak_memory(loss, logits, target) for loss in (CrossEntropyLoss(), BoundaryCrossEntropyLoss()))
    assert weighted < plain + 0.1
