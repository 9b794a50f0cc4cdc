"""Triplet loss against loops over all triplets in float64, mmdet's and pytorch-metric-learning's."""

import math

import pytest
import torch

from cvplugins.losses import TripletLoss, triplet_loss


def samples(seed=0, size=12, labels=3):
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(size, 4, generator=generator, dtype=torch.float64)
    return embeddings, torch.randint(0, labels, (size,), generator=generator)


def distance_between(one, other, kind):
    one, other = one.tolist(), other.tolist()
    if kind == "euclidean":
        return math.dist(one, other)
    product = sum(a * b for a, b in zip(one, other, strict=True))
    return 1 - product / math.hypot(*one) / math.hypot(*other)


def cost(near, far, margin):
    return math.log1p(math.exp(near - far)) if margin == "soft" else max(0.0, near - far + margin)


def slow_triplet_loss(embeddings, target, margin, mining, kind):
    """The loss of each anchor from the words of the papers; None without a positive or a negative."""
    losses, labels = [], target.tolist()
    for anchor, label in enumerate(labels):
        others = [i for i, other in enumerate(labels) if i != anchor and -100 not in (other, label)]
        distances = {i: distance_between(embeddings[anchor], embeddings[i], kind) for i in others}
        positives = [distances[i] for i in others if labels[i] == label]
        negatives = [distances[i] for i in others if labels[i] != label]
        if not positives or not negatives:
            losses.append(None)
        elif mining == "batch_hard":
            losses.append(cost(max(positives), min(negatives), margin))
        else:
            each = [
                cost(near, min((d for d in negatives if d > near), default=max(negatives)), margin)
                for near in positives
            ]
            losses.append(sum(each) / len(each))
    return losses


@pytest.mark.parametrize("mining", ["batch_hard", "semi_hard"])
@pytest.mark.parametrize("kind", ["euclidean", "cosine"])
@pytest.mark.parametrize("margin", [0.0, 0.3, 2.0, "soft"])
def test_equals_a_loop(mining, kind, margin):
    embeddings, target = samples()
    target[-1] = 9  # alone with its label: no anchor, but a negative of the others
    target[:2] = -100
    slow = slow_triplet_loss(embeddings, target, margin, mining, kind)
    options = {"margin": margin, "mining": mining, "distance": kind}
    expected = torch.tensor([each or 0.0 for each in slow], dtype=torch.float64)
    torch.testing.assert_close(triplet_loss(embeddings, target, reduction="none", **options), expected)
    counted = [each for each in slow if each is not None]
    assert len(counted) == 9
    mean = torch.tensor(sum(counted) / len(counted), dtype=torch.float64)
    torch.testing.assert_close(triplet_loss(embeddings, target, **options), mean)


def test_semi_hard_takes_the_farthest_negative_where_none_is_farther_than_the_positive():
    embeddings = torch.tensor([[0.0], [5.0], [1.0], [-2.0]])
    target = torch.tensor([0, 0, 1, 2])
    loss = triplet_loss(embeddings, target, margin=0.0, mining="semi_hard", reduction="none")
    assert loss.tolist() == [3.0, 0.0, 0.0, 0.0]


def test_a_negative_as_far_as_the_positive_is_not_semi_hard():
    embeddings = torch.tensor([[0.0], [2.0], [-2.0], [4.0]])
    loss = triplet_loss(embeddings, torch.tensor([0, 0, 1, 2]), margin=1.0, mining="semi_hard", reduction="none")
    assert loss.tolist() == [0.0, 0.0, 0.0, 0.0]  # the next are at 4, and of the second anchor at 4


@pytest.mark.openmmlab
def test_batch_hard_equals_mmdets():
    from mmdet.models.losses import TripletLoss as Theirs

    embeddings, target = samples(size=20)
    torch.testing.assert_close(TripletLoss()(embeddings, target), Theirs(margin=0.3)(embeddings, target))


def test_batch_hard_equals_pytorch_metric_learnings():
    pytest.importorskip("pytorch_metric_learning")
    from pytorch_metric_learning import distances, losses, miners, reducers

    embeddings, target = samples(size=20)
    options = {"distance": distances.LpDistance(normalize_embeddings=False)}
    mined = miners.BatchHardMiner(**options)(embeddings, target)
    theirs = losses.TripletMarginLoss(margin=0.3, reducer=reducers.MeanReducer(), **options)
    torch.testing.assert_close(TripletLoss()(embeddings, target), theirs(embeddings, target, mined))


@pytest.mark.parametrize("mining", ["batch_hard", "semi_hard"])
@pytest.mark.parametrize("target", [[0, 0, 0], [0, 1, 2], [0, -100, -100]])
def test_without_a_triplet_there_is_no_loss(mining, target):
    embeddings = torch.randn(3, 2, requires_grad=True)
    for margin in (0.3, "soft"):
        loss = triplet_loss(embeddings, torch.tensor(target), margin=margin, mining=mining)
        loss.backward()
        assert loss == 0
        assert not embeddings.grad.any()


@pytest.mark.parametrize("mining", ["batch_hard", "semi_hard"])
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_equal_embeddings_have_a_finite_gradient(mining, distance, value):
    embeddings = torch.full((4, 3), value, requires_grad=True)
    loss = triplet_loss(embeddings, torch.tensor([0, 0, 1, 1]), mining=mining, distance=distance)
    loss.backward()
    torch.testing.assert_close(loss.detach(), torch.tensor(0.3))
    assert embeddings.grad.isfinite().all()


@pytest.mark.parametrize("mining", ["batch_hard", "semi_hard"])
def test_separated_labels_cost_nothing(mining):
    target = torch.arange(3).repeat(4)
    embeddings = torch.eye(3)[target] * 10
    assert triplet_loss(embeddings, target, mining=mining) == 0


def test_training_brings_labels_apart():
    embeddings, target = samples()
    embeddings.requires_grad_()
    optimizer = torch.optim.SGD([embeddings], lr=0.5)
    for _ in range(60):
        optimizer.zero_grad()
        triplet_loss(embeddings, target).backward()
        optimizer.step()
    assert triplet_loss(embeddings, target) < 1e-3


def test_wrong_options_are_named():
    with pytest.raises(ValueError, match="unknown margin 'softmax'; use a number or 'soft'"):
        TripletLoss(margin="softmax")
    with pytest.raises(ValueError, match="unknown mining 'hard'; use one of 'batch_hard'"):
        TripletLoss(mining="hard")
    with pytest.raises(ValueError, match="unknown distance 'l2'; use one of 'euclidean'"):
        TripletLoss(distance="l2")
