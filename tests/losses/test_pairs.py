"""What the losses on embeddings share: masks by hand, distances against torch.cdist, delicate gradients."""

import pytest
import torch

from cvplugins.losses.pairs import cosine_similarities, label_pairs, root, squared_distances, unit_vectors


def test_pairs_leave_out_the_diagonal_and_what_is_ignored():
    positive, negative = label_pairs(torch.zeros(4, 2), torch.tensor([5, -3, 5, 255]), ignore_index=255)
    assert positive.nonzero().tolist() == [[0, 2], [2, 0]]
    assert negative.nonzero().tolist() == [[0, 1], [1, 0], [1, 2], [2, 1]]


def test_distances_equal_those_of_torch():
    vectors = torch.randn(40, 7, dtype=torch.float64)
    expected = torch.cdist(vectors, vectors, compute_mode="donot_use_mm_for_euclid_dist")
    torch.testing.assert_close(root(squared_distances(vectors)), expected, rtol=1e-7, atol=1e-6)


def test_distances_stay_precise_far_from_the_origin():
    """Products of vectors alone would round |x|^2 = 1e7 to 1; the origin does not matter to a distance."""
    vectors = torch.randn(40, 7)
    moved = (vectors.double() + 1e3).float()
    expected = torch.cdist(moved.double(), moved.double()).square()
    torch.testing.assert_close(squared_distances(moved).double(), expected, rtol=1e-4, atol=1e-3)


def test_gradient_of_distances_equals_finite_differences():
    vectors = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(squared_distances, vectors)
    assert torch.autograd.gradcheck(lambda x: cosine_similarities(x, x), vectors)


def test_gradient_is_finite_between_equal_vectors():
    vectors = torch.ones(3, 2, requires_grad=True)
    root(squared_distances(vectors)).sum().backward()
    assert not vectors.grad.any()


@pytest.mark.parametrize("length", [0.0, 1e-30, 1e-12, 1.0, 1e15])
def test_unit_vectors_of_any_length(length):
    vectors = (torch.tensor([[3.0, -4.0]]) * length).requires_grad_()
    unit = unit_vectors(vectors)
    unit[0, 0].backward()
    if length > 1e-20:
        torch.testing.assert_close(unit.detach(), torch.tensor([[0.6, -0.8]]))
    assert vectors.grad.isfinite().all()
    if length == 0:
        assert vectors.grad.tolist() == [[1.0, 0.0]]


def test_labels_are_checked():
    with pytest.raises(ValueError, match=r"target \(3,\) does not fit embeddings \(4, 2\)"):
        label_pairs(torch.zeros(4, 2), torch.zeros(3, dtype=torch.long), -100)
    with pytest.raises(ValueError, match=r"holds torch.float32; labels have to be integers"):
        label_pairs(torch.zeros(4, 2), torch.zeros(4), -100)
