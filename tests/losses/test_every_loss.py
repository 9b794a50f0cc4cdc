"""What holds for every loss: a new one is tested by being listed in LOSSES and here with an example."""

import copy
import pickle
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from helpers import TORCH, needs_torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from cvplugins.losses import (
    LOSSES,
    AdaptiveSoftmaxLoss,
    BCELoss,
    BoundaryCrossEntropyLoss,
    BoundaryLoss,
    BoxIoULoss,
    CharbonnierLoss,
    CompositeLoss,
    ContrastiveLoss,
    CosineSimilarityLoss,
    CrossEntropyLoss,
    DiceLoss,
    FeatureMatchingLoss,
    FocalLoss,
    FocalTverskyLoss,
    GANLoss,
    GeneralizedDiceLoss,
    HausdorffLoss,
    InfoNCELoss,
    IoULoss,
    L1Loss,
    L2Loss,
    LovaszLoss,
    MSSSIMLoss,
    OHEMLoss,
    PerceptualLoss,
    SampledSoftmaxLoss,
    SmoothL1Loss,
    SSIMLoss,
    StyleLoss,
    SupConLoss,
    TripletLoss,
    TverskyLoss,
)


def class_scores(dtype=torch.float64, size=6, classes=4):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(size, classes, generator=generator, dtype=torch.float64).to(dtype)
    return logits, torch.randint(0, classes, (size,), generator=generator)


def boxes(dtype=torch.float64, size=6):
    """Boxes beside, inside and across their targets."""
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(2, size, 2, generator=generator, dtype=torch.float64) * 4
    sides = 1 + torch.rand(2, size, 2, generator=generator, dtype=torch.float64) * 4
    predicted, target = torch.cat([corner, corner + sides], dim=-1).to(dtype)
    return predicted, target


def values(dtype=torch.float64, size=6):
    generator = torch.Generator().manual_seed(0)
    predicted, target = torch.randn(2, size, 4, generator=generator, dtype=torch.float64).to(dtype)
    return predicted, target


def pixel_scores(dtype=torch.float64, size=3, classes=4):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(size, classes, 5, generator=generator, dtype=torch.float64).to(dtype)
    return logits, torch.randint(0, classes, (size, 5), generator=generator)


def masks(dtype=torch.float64, size=3):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(size, 5, generator=generator, dtype=torch.float64).to(dtype)
    return logits, torch.randint(0, 2, (size, 5), generator=generator)


def initialised(loss, **options):
    """Return a loss that has parameters, always with the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return loss(**options)


def embeddings(dtype=torch.float64, size=6):
    """Vectors with labels that are no indices; of six, each has a positive and a negative."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(size, 4, generator=generator, dtype=torch.float64).to(dtype)
    return vectors, torch.tensor([7, 3, -1, 3, 7, -1])[:size]


def images(dtype=torch.float64, size=3):
    generator = torch.Generator().manual_seed(0)
    predicted, target = torch.rand(2, size, 3, 8, 7, generator=generator, dtype=torch.float64).to(dtype)
    return predicted, target


def patch_scores(dtype=torch.float64, size=3):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(size, 2, 3, 3, generator=generator, dtype=torch.float64).to(dtype)
    return scores, torch.arange(size) % 2


class TwoMaps(nn.Module):
    """A network of fixed filters, which computes in the type of its images."""

    def forward(self, images):
        filters = torch.arange(108, dtype=images.dtype).sin().view(4, 3, 3, 3)
        fine = F.conv2d(images, filters, padding=1).tanh()
        return {"fine": fine, "coarse": F.avg_pool2d(fine, 2).square()}


def grid_scores(dtype=torch.float64, size=2, classes=4):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(size, classes, 6, 5, generator=generator, dtype=torch.float64).to(dtype)
    return logits, torch.randint(0, classes, (size, 6, 5), generator=generator)


def grid_masks(dtype=torch.float64, size=2):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(size, 6, 5, generator=generator, dtype=torch.float64).to(dtype)
    return logits, torch.randint(0, 2, (size, 6, 5), generator=generator)


def certain(logits, target):
    """Return scores that say the target: high for its class, or of its sign."""
    if logits.shape == target.shape:
        return 200.0 * target - 100
    classes = torch.arange(logits.shape[1]).view(-1, *[1] * (target.ndim - 1))
    return 200.0 * (target.unsqueeze(1) == classes) - 100


def the_same(predicted, target):
    return target


# What predicts the target of a maker perfectly.
BEST = {
    class_scores: certain,
    pixel_scores: certain,
    grid_scores: certain,
    masks: certain,
    grid_masks: certain,
    boxes: the_same,
    values: the_same,
    images: the_same,
}


class Case(NamedTuple):
    """A loss, a maker of (input, target) with a given dtype, and what does not hold for it."""

    loss: nn.Module
    make: Callable
    ignores: bool = True  # an index can be ignored
    in_range: bool = True  # indices are classes of the input, others are refused
    per_element: bool = True  # "none" gives one loss an element, and weights belong to elements
    weights_only_scale: bool = True  # a weight scales its element and changes no other
    plain_mean: bool = True  # "mean" is the mean of "none"; else it leaves out more than what is ignored
    class_symmetric: bool = True  # the options treat all classes alike
    differentiable: bool = True  # smooth, and its gradient is that of its value: no factor that counts as constant
    # The backward pass may run in autocast too. torch advises against it, and rounds its own products there.
    backward_in_autocast: bool = True
    zero_at_best: bool = True  # a perfect prediction costs nothing, and its gradient is 0
    compiles: bool = True  # torch.compile takes it without a graph break, since torch 2.3

    @property
    def runs_on_a_fake_gpu(self) -> bool:
        """Whether nothing in it looks at data, and it has no parameters, which would have to be fake too."""
        return self.compiles and next(self.loss.parameters(), None) is None and not hasattr(self.loss, "features")


CASES = {
    "cross_entropy": Case(CrossEntropyLoss(), class_scores),
    "cross_entropy_smooth": Case(
        CrossEntropyLoss([1.0, 2.0, 0.5, 3.0], label_smoothing=0.2),
        class_scores,
        class_symmetric=False,
        zero_at_best=False,
    ),
    "bce": Case(BCELoss(pos_weight=2.0), class_scores),
    "focal_sigmoid": Case(FocalLoss(use_sigmoid=True, alpha=0.25), class_scores),
    "focal_sigmoid_gamma_half": Case(FocalLoss(use_sigmoid=True, gamma=0.5), class_scores),
    "focal_softmax": Case(FocalLoss(alpha=[0.1, 0.2, 0.3, 0.4]), class_scores, class_symmetric=False),
    # An element of weight 0 is never kept: another takes its place.
    "ohem": Case(
        OHEMLoss(CrossEntropyLoss(), keep_ratio=0.5), class_scores, weights_only_scale=False, plain_mean=False
    ),
    "ohem_all": Case(OHEMLoss(BCELoss(), keep_ratio=1.0), class_scores),
    "ohem_negatives": Case(
        OHEMLoss(FocalLoss(use_sigmoid=True), negative_ratio=1.5, background=0, min_kept=1),
        class_scores,
        weights_only_scale=False,
        plain_mean=False,
        class_symmetric=False,
    ),
    "ohem_image": Case(
        OHEMLoss(CrossEntropyLoss(), keep_ratio=0.5, over="image"),
        pixel_scores,
        weights_only_scale=False,
        plain_mean=False,
    ),
    # The second dimension are features, not classes. All classes are drawn: another draw gives the same.
    "sampled_softmax": Case(
        initialised(SampledSoftmaxLoss, in_features=4, num_classes=4, num_sampled=4),
        class_scores,
        class_symmetric=False,
        backward_in_autocast=False,
        zero_at_best=False,
    ),
    "sampled_softmax_eval": Case(
        initialised(SampledSoftmaxLoss, in_features=4, num_classes=4, num_sampled=1).eval(),
        class_scores,
        class_symmetric=False,
        backward_in_autocast=False,
        zero_at_best=False,
    ),
    "adaptive_softmax": Case(
        initialised(AdaptiveSoftmaxLoss, in_features=4, num_classes=4, cutoffs=[2], frequencies=[1, 3, 2, 4]),
        class_scores,
        class_symmetric=False,
        backward_in_autocast=False,
        compiles=False,  # torch looks up which clusters it needs
        zero_at_best=False,
    ),
    "dice": Case(DiceLoss(), pixel_scores, per_element=False),
    "dice_batch": Case(DiceLoss(beta=2, over="batch", smooth=0.1), pixel_scores, per_element=False),
    "dice_binary": Case(DiceLoss(mode="binary"), masks, ignores=False, per_element=False),
    "iou": Case(IoULoss(class_weight=[1.0, 2.0, 0.0, 1.0]), pixel_scores, per_element=False, class_symmetric=False),
    "tversky": Case(TverskyLoss(smooth=0), pixel_scores, per_element=False, zero_at_best=False),
    "focal_tversky": Case(FocalTverskyLoss(), pixel_scores, per_element=False),
    "generalized_dice": Case(GeneralizedDiceLoss(), pixel_scores, per_element=False),
    "lovasz": Case(LovaszLoss(), pixel_scores, per_element=False, plain_mean=False),
    "lovasz_batch": Case(
        LovaszLoss(over="batch", class_weight=[1.0, 2.0, 0.5, 1.0]),
        pixel_scores,
        per_element=False,
        plain_mean=False,
        class_symmetric=False,
    ),
    "lovasz_hinge": Case(LovaszLoss(binary=True), masks, ignores=False, per_element=False, plain_mean=False),
    # Distances come from SciPy on the CPU, and which classes are there decides about shapes: no graph holds that.
    "boundary": Case(BoundaryLoss(), grid_scores, compiles=False, zero_at_best=False),
    "boundary_normalised": Case(
        BoundaryLoss(normalise=True, class_weight=[0.0, 1.0, 2.0, 1.0], cache_size=4),
        grid_scores,
        class_symmetric=False,
        compiles=False,
        zero_at_best=False,
    ),
    "boundary_binary": Case(
        BoundaryLoss(mode="binary"), grid_masks, in_range=False, compiles=False, zero_at_best=False
    ),
    "hausdorff": Case(HausdorffLoss(), grid_scores, compiles=False),
    "hausdorff_one_sided": Case(HausdorffLoss(alpha=1.0, one_sided=True), grid_scores, compiles=False),
    "hausdorff_binary": Case(HausdorffLoss(mode="binary"), grid_masks, in_range=False, compiles=False),
    "boundary_cross_entropy": Case(BoundaryCrossEntropyLoss(), grid_scores, compiles=False),
    "l1": Case(L1Loss(), values, ignores=False),
    "l2": Case(L2Loss(), values, ignores=False),
    "charbonnier": Case(CharbonnierLoss(eps=0.1), values, ignores=False, zero_at_best=False),
    "smooth_l1": Case(SmoothL1Loss(beta=0.7), values, ignores=False),
    "composite": Case(
        CompositeLoss(
            {"ce": CrossEntropyLoss(), "focal": FocalLoss(), "smooth": CrossEntropyLoss(label_smoothing=0.1)},
            {"ce": 2.0, "focal": "learned", "smooth": [(0, 0.5), (10, 1.0)]},
        ),
        class_scores,
        zero_at_best=False,
    ),
    "perceptual": Case(PerceptualLoss(TwoMaps(), layer_weight=[1.0, 0.5]), images, ignores=False),
    "style": Case(StyleLoss(TwoMaps()), images, ignores=False),
    "feature_matching": Case(FeatureMatchingLoss(TwoMaps(), layers=["coarse"]), images, ignores=False),
    "gan": Case(GANLoss(real_label=0.9), masks, ignores=False, zero_at_best=False),
    "gan_patches": Case(GANLoss("lsgan"), patch_scores, ignores=False),
    "gan_hinge": Case(GANLoss("hinge"), masks, ignores=False),
    "gan_wgan": Case(GANLoss("wgan"), patch_scores, ignores=False),
    "cosine": Case(CosineSimilarityLoss(), values, ignores=False),
    "contrastive": Case(ContrastiveLoss(margin=3.0), embeddings, in_range=False),
    "sup_con": Case(SupConLoss(), embeddings, in_range=False),
    "info_nce": Case(InfoNCELoss(), values, ignores=False, zero_at_best=False),
    "info_nce_symmetric": Case(InfoNCELoss(temperature=0.5, symmetric=True), values, ignores=False, zero_at_best=False),
    "triplet_batch_hard": Case(TripletLoss(), embeddings, in_range=False),
    "triplet_batch_hard_soft_cosine": Case(TripletLoss(margin="soft", distance="cosine"), embeddings, in_range=False),
    "triplet_semi_hard": Case(TripletLoss(margin=3.0, mining="semi_hard"), embeddings, in_range=False),
    "ssim": Case(SSIMLoss(window=5), images, ignores=False),
    "ms_ssim": Case(MSSSIMLoss(window=3, scale_weights=[0.4, 0.6]), images, ignores=False),
    **{
        f"box_{kind}": Case(BoxIoULoss(kind=kind), boxes, ignores=False, differentiable=kind != "ciou")
        for kind in ("iou", "giou", "diou", "ciou", "eiou", "siou", "alpha_iou")
    },
}


def cases_that(*demands, made_by=None):
    """Parametrise over the cases whose fields of these names are all true, of certain makers or of all."""
    chosen = {
        name: (case.loss, case.make)
        for name, case in CASES.items()
        if all(getattr(case, demand) for demand in demands) and (made_by is None or case.make in made_by)
    }
    return pytest.mark.parametrize(("loss", "make"), chosen.values(), ids=chosen)


every_loss = cases_that()

no_float16 = needs_torch(2, 2, "autocast has no float16 on a CPU before")
autocast_types = pytest.mark.parametrize("dtype", [pytest.param(torch.float16, marks=no_float16), torch.bfloat16])


def test_every_listed_loss_has_a_case():
    assert {type(case.loss) for case in CASES.values()} == set(LOSSES)
    assert len(LOSSES) == len(set(LOSSES))


@cases_that("differentiable")
def test_gradient_equals_finite_differences(loss, make):
    logits, target = make()
    assert torch.autograd.gradcheck(lambda x: loss(x, target), logits.requires_grad_())


@every_loss
def test_sum_and_divisor_follow_from_none(loss, make):
    logits, target = make()
    each = loss(logits, target, reduction="none")
    torch.testing.assert_close(loss(logits, target, reduction="sum"), each.sum())
    torch.testing.assert_close(loss(logits, target, reduction="mean", divisor=3), each.sum() / 3)
    torch.testing.assert_close(loss(logits, target, divisor=torch.tensor(3.0)), each.sum() / 3)


@cases_that("plain_mean")
def test_mean_follows_from_none(loss, make):
    logits, target = make()
    torch.testing.assert_close(loss(logits, target), loss(logits, target, reduction="none").mean())


@cases_that("per_element", "weights_only_scale")
def test_weight_scales_each_element(loss, make):
    logits, target = make()
    weight = torch.arange(len(target), dtype=logits.dtype)
    each = loss(logits, target, reduction="none")
    expected = each * weight.view(-1, *[1] * (each.ndim - 1))
    if each.ndim > 2:  # an element is a pixel
        weight = weight.view(-1, *[1] * (each.ndim - 1)).expand_as(each)
    torch.testing.assert_close(loss(logits, target, weight=weight, reduction="none"), expected)


@cases_that("per_element", "weights_only_scale")
def test_weight_may_be_one_number(loss, make):
    logits, target = make()
    torch.testing.assert_close(loss(logits, target, weight=torch.tensor(2.0)), 2 * loss(logits, target))


@every_loss
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_empty_input_gives_zero_with_a_graph(loss, make, reduction):
    logits, target = make(torch.float32)
    logits = logits[:0].requires_grad_()
    value = loss(logits, target[:0], reduction=reduction)
    value.backward()
    assert value == 0
    assert logits.grad.shape == logits.shape


@cases_that("ignores", "per_element")
def test_ignored_elements_add_no_loss_and_no_gradient(loss, make):
    logits, target = make()
    ignored = target.clone()
    ignored[::2] = 255
    whole = logits.clone().requires_grad_()
    part = logits[1::2].clone().requires_grad_()
    value = loss(whole, ignored, ignore_index=255)
    expected = loss(part, target[1::2])
    value.backward()
    expected.backward()
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(whole.grad[1::2], part.grad)
    assert not whole.grad[::2].any()


@cases_that("ignores")
def test_a_class_may_be_ignored(loss, make):
    logits, target = make()
    ignored = target.flatten()[0].item()
    whole, marked = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    value = loss(whole, target, ignore_index=ignored)
    expected = loss(marked, target.masked_fill(target == ignored, 255), ignore_index=255)
    value.backward()
    expected.backward()
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(whole.grad, marked.grad)


@cases_that("ignores")
def test_everything_ignored_gives_zero(loss, make):
    logits, target = make(torch.float32)
    logits.requires_grad_()
    value = loss(logits, torch.full_like(target, 255), ignore_index=255)
    value.backward()
    assert value == 0
    assert not logits.grad.any()


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(loss, make, dtype):
    logits, target = make(dtype)
    value = loss(logits, target)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(logits.float(), target))


@every_loss
@autocast_types
def test_autocast_changes_nothing_beyond_rounding(loss, make, dtype):
    expected = value_and_gradient(loss, make)
    with torch.autocast("cpu", dtype=dtype):
        leaf, value = value_of_leaf(loss, make)
    value.backward()
    torch.testing.assert_close((value.detach(), leaf.grad), expected, rtol=1e-5, atol=1e-6)


@cases_that("backward_in_autocast")
@autocast_types
def test_neither_does_backward_in_autocast(loss, make, dtype):
    expected = value_and_gradient(loss, make)
    with torch.autocast("cpu", dtype=dtype):
        in_autocast = value_and_gradient(loss, make)
    torch.testing.assert_close(in_autocast, expected, rtol=1e-5, atol=1e-6)


def value_of_leaf(loss, make):
    logits, target = make(torch.float32)
    logits.requires_grad_()
    return logits, loss(logits, target)


def value_and_gradient(loss, make):
    leaf, value = value_of_leaf(loss, make)
    value.backward()
    return value.detach(), leaf.grad


@every_loss
def test_one_element(loss, make):
    logits, target = make(torch.float32, size=1)
    logits.requires_grad_()
    value = loss(logits, target)
    value.backward()
    assert value.isfinite()
    assert logits.grad.isfinite().all()


@cases_that("zero_at_best", made_by=BEST)
def test_perfect_prediction_costs_nothing(loss, make):
    perfect = BEST[make](*make()).double().requires_grad_()
    value = loss(perfect, make()[1])
    value.backward()
    torch.testing.assert_close(value, torch.zeros_like(value), rtol=0, atol=1e-7)
    torch.testing.assert_close(perfect.grad, torch.zeros_like(perfect), rtol=0, atol=1e-7)


@every_loss
def test_order_of_the_batch_does_not_matter(loss, make):
    logits, target = make()
    order = torch.arange(len(logits) - 1, -1, -1)
    torch.testing.assert_close(loss(logits[order], target[order]), loss(logits, target))


@cases_that("ignores", "in_range", "class_symmetric")
def test_order_of_the_classes_does_not_matter(loss, make):
    logits, target = make()
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(loss(logits[:, order], order.argsort()[target]), loss(logits, target))


@cases_that("compiles")
def test_compiled_gives_the_same_and_takes_any_batch_size(loss, make):
    """The first graph is for one size, the second for any; traced anew for each size it would cost minutes.

    In one graph since torch 2.3: Dynamo breaks at autograd.Function, zip(strict=True) or promote_types before.
    """
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs) if len(graphs) == 1 else graph.forward

    in_one_graph = TORCH >= (2, 3)
    logits, target = make(torch.float32)
    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=in_one_graph, backend=backend)
    gradients = []
    for function in (loss, compiled):
        leaf = logits.clone().requires_grad_()
        value = function(leaf, target)
        value.backward()
        gradients.append((value.detach(), leaf.grad))
    torch.testing.assert_close(gradients[1], gradients[0])
    for size in (5, 4):
        logits, target = make(torch.float32, size=size)
        torch.testing.assert_close(compiled(logits.requires_grad_(), target), loss(logits, target))
    assert len(graphs) <= 2 or not in_one_graph


@needs_torch(2, 3, "torch's own decorator is all that its compiler takes before")
@every_loss
def test_second_derivative_is_right_or_an_error(loss, make):
    predicted, target = make()
    direction = torch.ones_like(predicted).sin()

    def slope(logits, **options):
        (gradient,) = torch.autograd.grad(loss(logits, target), logits, **options)
        return (gradient * direction).sum()

    leaf = predicted.clone().requires_grad_()
    try:
        along = slope(leaf, create_graph=True)
    except RuntimeError as error:
        if "no second derivative" in str(error):
            return
        raise
    (second,) = torch.autograd.grad(along + 0 * leaf.sum(), leaf)  # what does not depend on the leaf has 0
    step = 1e-5 * direction
    ahead, behind = (slope((predicted + sign * step).requires_grad_()) for sign in (1, -1))
    torch.testing.assert_close((second * step).sum(), (ahead - behind) / 2, rtol=1e-3, atol=1e-9)


class Waits(TorchDispatchMode):
    """Collects what makes the CPU wait for a GPU."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and args and isinstance(args[0], torch.Tensor):
            moved = args[0].device != result.device and not (kwargs or {}).get("non_blocking")
            if moved or function is torch.ops.aten._local_scalar_dense.default:
                self.found.append(str(function))
        return result


@cases_that("runs_on_a_fake_gpu")
@needs_torch(2, 6, "a fake GPU of older versions is not tested")
def test_a_gpu_is_not_waited_for(loss, make):
    """On a fake one. What depends on data raises there; a copy from the CPU has to be non_blocking."""
    logits, target = make(torch.float32)
    with FakeTensorMode(), Waits() as waits:
        logits, target = (torch.empty(each.shape, dtype=each.dtype, device="cuda") for each in (logits, target))
        for reduction in ("none", "mean"):
            assert loss(logits, target, reduction=reduction).device.type == "cuda"
    assert not waits.found


@every_loss
def test_copies_give_the_same(loss, make):
    logits, target = make()
    expected = loss(logits, target)
    for copied in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        torch.testing.assert_close(copied(logits, target), expected, rtol=0, atol=0)


@every_loss
def test_large_logits_stay_finite(loss, make):
    logits, target = make(torch.float32)
    logits = (logits * 1e4).requires_grad_()
    value = loss(logits, target)
    value.backward()
    assert value.isfinite()
    assert logits.grad.isfinite().all()


@every_loss
def test_non_contiguous_input(loss, make):
    logits, target = make()
    strided = logits.transpose(0, 1).contiguous().transpose(0, 1)
    assert not strided.is_contiguous()
    torch.testing.assert_close(loss(strided, target), loss(logits, target))
    if logits.ndim == 4:
        channels_last = logits.contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(loss(channels_last, target), loss(logits, target))


@cases_that("ignores")
@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32])
def test_labels_may_be_any_integers(loss, make, dtype):
    logits, target = make()
    target = target.clamp(min=0)  # bytes have no sign
    torch.testing.assert_close(loss(logits, target.to(dtype)), loss(logits, target), rtol=0, atol=0)


@cases_that("ignores", "in_range")
def test_indices_outside_of_the_classes_are_named(loss, make):
    logits, target = make()
    for wrong in (5, -1):
        target[-1] = wrong
        with pytest.raises(ValueError, match=f"target holds {wrong}; expected 0 to"):
            loss(logits, target)


@every_loss
def test_wrong_arguments_are_named(loss, make):
    logits, target = make()
    with pytest.raises(ValueError, match="unknown reduction 'avg'"):
        loss(logits, target, reduction="avg")
    with pytest.raises(ValueError, match="does not fit"):
        loss(logits, target[:-1])
    with pytest.raises(ValueError, match="takes no divisor"):
        loss(logits, target, reduction="sum", divisor=2)
    with pytest.raises(ValueError, match=r"weight .* does not fit"):
        loss(logits, target, weight=torch.ones(len(target) + 1))
