"""Cross-entropies against torch, mmdet and what defines them."""

import pytest
import torch
import torch.nn.functional as F

from cvplugins.losses import BCELoss, CrossEntropyLoss, binary_cross_entropy, cross_entropy


def scores(dtype=torch.float64):
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(4, 5, 3, 2, generator=generator, dtype=dtype) * 3
    return logits, torch.randint(0, 5, (4, 3, 2), generator=generator)


def test_equals_minus_log_of_the_probability():
    logits, target = scores()
    expected = -logits.softmax(1).gather(1, target[:, None]).squeeze(1).log()
    torch.testing.assert_close(cross_entropy(logits, target, reduction="none"), expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("factors", [None, [1.0, 2.0, 0.0, 4.0, 0.5]])
def test_equals_torch(smoothing, factors):
    logits, target = scores()
    target[0, 0, 0] = 255
    options = {"ignore_index": 255, "label_smoothing": smoothing}
    each = cross_entropy(logits, target, class_weight=factors, reduction="none", **options)
    weight = None if factors is None else torch.tensor(factors, dtype=logits.dtype)
    torch.testing.assert_close(each, F.cross_entropy(logits, target, weight, reduction="none", **options))
    mean = cross_entropy(logits, target, class_weight=factors, **options)
    torch.testing.assert_close(mean, each.sum() / 23)  # 24 elements, one ignored


def test_probabilities_as_target():
    logits, target = scores()
    one_hot = F.one_hot(target, 5).permute(0, 3, 1, 2).double()
    torch.testing.assert_close(cross_entropy(logits, one_hot), cross_entropy(logits, target))
    mixed = 0.7 * one_hot + 0.3 * one_hot.flip(1)
    torch.testing.assert_close(cross_entropy(logits, mixed), F.cross_entropy(logits, mixed))


def test_binary_equals_its_formula():
    logits, target = scores()
    one_hot = F.one_hot(target, 5).permute(0, 3, 1, 2).double()
    probability = logits.sigmoid()
    expected = -(one_hot * probability.log() + (1 - one_hot) * (1 - probability).log())
    for given in (target, one_hot):
        torch.testing.assert_close(binary_cross_entropy(logits, given, reduction="none"), expected)


def test_background_is_no_class():
    logits, target = scores()
    nothing = torch.full_like(target, 5)
    expected = F.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits))
    torch.testing.assert_close(binary_cross_entropy(logits, nothing), expected)


@pytest.mark.parametrize("factors", [3.0, [1.0, 2.0, 0.0, 4.0, 0.5]])
def test_weight_of_positives(factors):
    logits, target = scores()
    one_hot = F.one_hot(target, 5).permute(0, 3, 1, 2).double()
    expected = F.binary_cross_entropy_with_logits(
        logits, one_hot, pos_weight=torch.as_tensor(factors, dtype=logits.dtype).reshape(-1, 1, 1)
    )
    torch.testing.assert_close(binary_cross_entropy(logits, target, pos_weight=factors), expected)


def test_single_elements_of_a_dense_target_are_ignored():
    """Several labels may be true at once, and some unknown."""
    logits, target = torch.randn(6), torch.tensor([1.0, 0, 255, 1, 255, 0])
    known = target != 255
    expected = F.binary_cross_entropy_with_logits(logits[known], target[known])
    torch.testing.assert_close(binary_cross_entropy(logits, target, ignore_index=255), expected)


@pytest.mark.openmmlab
def test_equals_mmdet():
    from mmdet.models.losses import CrossEntropyLoss as Theirs

    logits, target = scores(torch.float32)
    logits, target, weight = logits[:, :, 0, 0], target[:, 0, 0], torch.rand(4)
    call = {"weight": weight, "avg_factor": 3.0}
    ours = cross_entropy(logits, target, weight=weight, divisor=3.0)
    torch.testing.assert_close(ours, Theirs()(logits, target, **call))
    ours = binary_cross_entropy(logits, target, weight=weight, divisor=3.0)
    torch.testing.assert_close(ours, Theirs(use_sigmoid=True)(logits, target, **call))


def test_wrong_options_are_named():
    logits, target = scores()
    with pytest.raises(ValueError, match="label_smoothing must be in"):
        CrossEntropyLoss(label_smoothing=1.5)
    with pytest.raises(ValueError, match="class_weight holds 2 numbers; use 1 or 5"):
        CrossEntropyLoss([1.0, 2.0])(logits, target)
    with pytest.raises(ValueError, match="pos_weight holds 2 numbers"):
        BCELoss([1.0, 2.0])(logits, target)
    with pytest.raises(ValueError, match="class indices have to be integers"):
        cross_entropy(logits, target.double())


@pytest.mark.parametrize("loss", [BCELoss(), CrossEntropyLoss()])
def test_bytes_do_not_wrap_to_the_index_to_ignore(loss):
    logits, target = torch.randn(2, 200), torch.tensor([156, 199])
    torch.testing.assert_close(loss(logits, target.byte(), ignore_index=-100), loss(logits, target, ignore_index=-100))
