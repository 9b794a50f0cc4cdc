"""Contrastive losses against loops in float64, each other, torch's cross-entropy and pytorch-metric-learning's."""

import math

import pytest
import torch
import torch.nn.functional as F

from cvplugins.losses import InfoNCELoss, SupConLoss, contrastive_loss, info_nce_loss, supcon_loss


def samples(size=12, labels=3):
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(size, 4, generator=generator, dtype=torch.float64)
    return embeddings, torch.randint(0, labels, (size,), generator=generator)


def with_ignored(size=12):
    embeddings, target = samples(size)
    target[:2], target[-1] = -100, 9  # the last is alone with its label
    return embeddings, target


def test_contrastive_equals_a_loop():
    embeddings, target = with_ignored()
    labels, vectors = target.tolist(), embeddings.tolist()
    kept = [i for i, label in enumerate(labels) if label != -100]
    pairs = {
        (i, j): math.dist(vectors[i], vectors[j]) ** 2
        if labels[i] == labels[j]
        else max(0, 2.5 - math.dist(vectors[i], vectors[j])) ** 2
        for i in kept
        for j in kept
        if i != j
    }
    anchors = [sum(loss for (i, _), loss in pairs.items() if i == anchor) / 9 for anchor in range(12)]
    each = contrastive_loss(embeddings, target, margin=2.5, reduction="none")
    torch.testing.assert_close(each, torch.tensor(anchors, dtype=torch.float64))
    mean = torch.tensor(sum(pairs.values()) / len(pairs), dtype=torch.float64)
    torch.testing.assert_close(contrastive_loss(embeddings, target, margin=2.5), mean)


def test_contrastive_of_one_pair():
    """Hadsell's two terms without the factor of 1/2."""
    pair = torch.tensor([[0.0, 0.0], [0.3, 0.4]])
    torch.testing.assert_close(contrastive_loss(pair, torch.tensor([1, 1])), torch.tensor(0.25))
    torch.testing.assert_close(contrastive_loss(pair, torch.tensor([1, 2]), margin=0.7), torch.tensor(0.04))
    assert contrastive_loss(pair, torch.tensor([1, 2]), margin=0.4) == 0


def test_sup_con_equals_its_formula():
    embeddings, target = with_ignored()
    labels = target.tolist()
    unit = [[x / math.hypot(*vector) for x in vector] for vector in embeddings.tolist()]
    score = [[sum(a * b for a, b in zip(u, v, strict=True)) / 0.2 for v in unit] for u in unit]
    anchors = []
    for i in range(2, 12):
        others = [a for a in range(2, 12) if a != i]
        positives = [p for p in others if labels[p] == labels[i]]
        below = sum(math.exp(score[i][a]) for a in others)
        anchors.append([-math.log(math.exp(score[i][p]) / below) for p in positives])
    expected = torch.tensor([0.0, 0.0, *(sum(each) / max(1, len(each)) for each in anchors)], dtype=torch.float64)
    each = supcon_loss(embeddings, target, temperature=0.2, reduction="none")
    torch.testing.assert_close(each, expected)
    torch.testing.assert_close(supcon_loss(embeddings, target, temperature=0.2), expected.sum() / 9)


def test_sup_con_equals_pytorch_metric_learnings():
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    embeddings, target = samples(30)
    torch.testing.assert_close(SupConLoss()(embeddings, target), losses.SupConLoss(temperature=0.1)(embeddings, target))


def test_sup_con_of_two_views_is_nt_xent():
    """SimCLR, equation 1: cross-entropy over the 2 N - 1 others."""
    one, other = torch.randn(2, 5, 4, dtype=torch.float64)
    views = F.normalize(torch.cat([one, other]))
    scores = (views @ views.t() / 0.5).fill_diagonal_(-math.inf)
    expected = F.cross_entropy(scores, torch.arange(10).roll(5))
    labels = torch.arange(5).repeat(2)
    torch.testing.assert_close(supcon_loss(torch.cat([one, other]), labels, temperature=0.5), expected)


def test_nt_xent_equals_pytorch_metric_learnings():
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    embeddings, labels = torch.randn(10, 4, dtype=torch.float64), torch.arange(5).repeat(2)
    expected = losses.NTXentLoss(temperature=0.5)(embeddings, labels)
    torch.testing.assert_close(supcon_loss(embeddings, labels, temperature=0.5), expected)


def test_info_nce_equals_cross_entropy():
    queries, keys = torch.randn(2, 6, 4, dtype=torch.float64)
    scores = F.normalize(queries) @ F.normalize(keys).t() / 0.07
    forth = F.cross_entropy(scores, torch.arange(6), reduction="none")
    back = F.cross_entropy(scores.t(), torch.arange(6), reduction="none")
    options = {"temperature": 0.07, "reduction": "none"}
    torch.testing.assert_close(info_nce_loss(queries, keys, **options), forth)
    torch.testing.assert_close(info_nce_loss(keys, queries, **options), back)
    torch.testing.assert_close(info_nce_loss(queries, keys, symmetric=True, **options), (forth + back) / 2)


def test_keys_have_a_gradient():
    queries, keys = torch.randn(2, 4, 3, dtype=torch.float64)
    for symmetric in (False, True):
        loss = InfoNCELoss(symmetric=symmetric)
        assert torch.autograd.gradcheck(loss, (queries.requires_grad_(), keys.requires_grad_()))


@pytest.mark.parametrize("loss", [SupConLoss(temperature=1e-3), InfoNCELoss(temperature=1e-3)])
def test_low_temperatures_stay_finite_in_half_precision(loss):
    embeddings = torch.randn(8, 4).half().requires_grad_()
    target = torch.arange(8) // 2 if isinstance(loss, SupConLoss) else torch.randn(8, 4).half()
    value = loss(embeddings, target)
    value.backward()
    assert value.isfinite()
    assert embeddings.grad.isfinite().all()


@pytest.mark.parametrize("function", [contrastive_loss, supcon_loss])
@pytest.mark.parametrize("target", [[3], [-100, -100], [0, -100]])
def test_without_pairs_there_is_no_loss(function, target):
    embeddings = torch.randn(len(target), 3, requires_grad=True)
    loss = function(embeddings, torch.tensor(target))
    loss.backward()
    assert loss == 0
    assert not embeddings.grad.any()


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_equal_embeddings_have_a_finite_gradient(value):
    for function in (contrastive_loss, supcon_loss):
        embeddings = torch.full((4, 3), value, requires_grad=True)
        function(embeddings, torch.tensor([0, 0, 1, 1])).backward()
        assert embeddings.grad.isfinite().all()


def test_perfect_embeddings():
    target = torch.arange(4).repeat(2)
    assert contrastive_loss(torch.eye(4)[target], target, margin=1.0) < 1e-6
    assert supcon_loss(torch.eye(4)[target], target, temperature=0.01) < 1e-6
    assert info_nce_loss(torch.eye(4), torch.eye(4), temperature=0.01) < 1e-6


def test_wrong_options_are_named():
    for loss in (SupConLoss, InfoNCELoss):
        with pytest.raises(ValueError, match="temperature must be above 0, not 0"):
            loss(temperature=0)
    with pytest.raises(ValueError, match=r"\(2, 3, 4\) does not fit: expected \(N, D\)"):
        info_nce_loss(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4))
