"""Lovász losses against the authors' algorithm, one class and one pixel at a time."""

import pytest
import torch

from cvplugins.losses import LovaszLoss, lovasz_hinge_loss, lovasz_softmax_loss


def jaccard_steps(labels):
    """Algorithm 1 of the paper: labels in falling order of error."""
    steps, before = [], 0.0
    for count in range(1, len(labels) + 1):
        intersection = sum(labels) - sum(labels[:count])
        union = sum(labels) + count - sum(labels[:count])
        steps.append(1 - intersection / union - before)
        before = 1 - intersection / union
    return steps


def lovasz_of(errors, labels):
    order = sorted(range(len(errors)), key=lambda index: -errors[index])
    steps = jaccard_steps([labels[index] for index in order])
    return sum(errors[index] * step for index, step in zip(order, steps, strict=True))


def scores(classes=3):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, classes, 3, 4, generator=generator, dtype=torch.float64)
    target = torch.randint(0, classes, (2, 3, 4), generator=generator)
    target[0, 0, :3] = 255
    target[1][target[1] == 2] = 0  # class 2 is absent from the second image
    return logits, target


@pytest.mark.parametrize("over", ["image", "batch"])
def test_softmax_equals_the_algorithm(over):
    logits, target = scores()
    groups = [[0], [1]] if over == "image" else [[0, 1]]
    expected = []
    for group in groups:
        labels = torch.cat([target[image].flatten() for image in group])
        chances = torch.cat([logits[image].softmax(0).flatten(1) for image in group], dim=1)[:, labels != 255]
        labels = labels[labels != 255]
        for index in range(3):
            is_class = (labels == index).double()
            if is_class.any():
                expected.append(lovasz_of((is_class - chances[index]).abs().tolist(), is_class.tolist()))
    found = lovasz_softmax_loss(logits, target, over=over)
    torch.testing.assert_close(found, torch.tensor(sum(expected) / len(expected), dtype=torch.float64))


@pytest.mark.parametrize("over", ["image", "batch"])
def test_hinge_equals_the_algorithm(over):
    logits = torch.randn(2, 3, 5, dtype=torch.float64) * 2
    target = torch.randint(0, 2, (2, 3, 5))
    target[0, 0, 0] = 255
    expected = []
    for group in [[0], [1]] if over == "image" else [[0, 1]]:
        labels = torch.cat([target[image].flatten() for image in group])
        margins = torch.cat([logits[image].flatten() for image in group])[labels != 255]
        labels = labels[labels != 255].double()
        errors = (1 - margins * (2 * labels - 1)).clamp(min=0)
        expected.append(lovasz_of(errors.tolist(), labels.tolist()))
    found = lovasz_hinge_loss(logits, target, over=over, reduction="none")
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_hard_predictions_give_one_minus_the_jaccard_index():
    """The extension equals the set function at its corners."""
    target = torch.tensor([[0, 0, 1, 1, 1, 2]])
    predicted = torch.tensor([0, 1, 1, 1, 0, 2])
    logits = (torch.nn.functional.one_hot(predicted, 3).T[None].double() * 2 - 1) * 1e3
    found = lovasz_softmax_loss(logits, target, reduction="none")
    torch.testing.assert_close(found, torch.tensor([[1 - 1 / 3, 1 - 2 / 4, 0.0]], dtype=torch.float64))


def test_ignored_pixels_never_move_the_loss():
    logits, target = scores()
    moved = logits.clone()
    moved[0, :, 0, :3] += torch.tensor([50.0, -50, 0]).view(3, 1)
    torch.testing.assert_close(LovaszLoss()(moved, target), LovaszLoss()(logits, target))


def test_wrong_options_are_named():
    with pytest.raises(ValueError, match="has no classes"):
        LovaszLoss(binary=True, class_weight=[1.0])
    with pytest.raises(ValueError, match="unknown over"):
        LovaszLoss(over="all")


def test_hinge_takes_flat_points_as_one_region():
    """Mask2Former's head hands over the points of all masks in one row."""
    logits, target = torch.randn(7), torch.tensor([0, 1, 1, 0, 0, 1, 0])
    loss = lovasz_hinge_loss(logits, target, over="batch")
    torch.testing.assert_close(loss, lovasz_hinge_loss(logits[None], target[None]))


def test_softmax_takes_points_without_pixels():
    logits, target = torch.randn(5, 3), torch.tensor([0, 2, 1, 0, 255])
    expected = lovasz_softmax_loss(logits.T.unsqueeze(0), target.unsqueeze(0))
    torch.testing.assert_close(lovasz_softmax_loss(logits, target, over="batch"), expected)


def test_hinge_is_finite_where_ignored_scores_are_not():
    logits, target = torch.tensor([[1.0, float("nan"), -0.5]], requires_grad=True), torch.tensor([[1, 255, 1]])
    loss = lovasz_hinge_loss(logits, target)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()
