"""Cosine loss against torch's."""

import pytest
import torch
import torch.nn.functional as F

from cvplugins.losses import CosineSimilarityLoss, cosine_similarity_loss


@pytest.mark.parametrize("shape", [(5, 4), (2, 4, 3), (2, 4, 3, 5)])
def test_equals_torch(shape):
    vectors, target = torch.randn(2, *shape, dtype=torch.float64)
    expected = 1 - F.cosine_similarity(vectors, target, dim=1)
    torch.testing.assert_close(cosine_similarity_loss(vectors, target, reduction="none"), expected)


def test_equals_torchs_embedding_loss_of_similar_pairs():
    vectors, target = torch.randn(2, 6, 4, dtype=torch.float64)
    expected = F.cosine_embedding_loss(vectors, target, torch.ones(6))
    torch.testing.assert_close(CosineSimilarityLoss()(vectors, target), expected)


def test_limits():
    vectors = torch.tensor([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]])
    target = torch.tensor([[3.0, 6.0], [-2.0, 1.0], [-1.0, -2.0]])
    expected = torch.tensor([0.0, 1.0, 2.0])
    torch.testing.assert_close(cosine_similarity_loss(vectors, target, reduction="none"), expected)


def test_a_zero_vector_costs_one_with_a_small_gradient():
    """torch divides by eps instead, which gives a gradient of 1e8."""
    vectors = torch.zeros(1, 2, requires_grad=True)
    loss = cosine_similarity_loss(vectors, torch.tensor([[3.0, 4.0]]))
    loss.backward()
    assert loss == 1
    torch.testing.assert_close(vectors.grad, torch.tensor([[-0.6, -0.8]]))


def test_a_weight_belongs_to_each_position():
    vectors, target = torch.randn(2, 2, 4, 3, 5)
    weight = torch.rand(2, 3, 5)
    each = cosine_similarity_loss(vectors, target, reduction="none")
    torch.testing.assert_close(cosine_similarity_loss(vectors, target, weight=weight), (each * weight).mean())


def test_one_dimension_does_not_fit():
    with pytest.raises(ValueError, match="does not fit"):
        cosine_similarity_loss(torch.zeros(4), torch.zeros(4))
