"""Sampled softmax against a float64 loop, full cross-entropy, TensorFlow, and bounds on memory."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile

from cvplugins.losses import ByFrequency, LogUniform, SampledSoftmaxLoss, Uniform, sampled_softmax_loss
from cvplugins.losses.class_sampling import ClassSample


def problem(rows=12, dims=5, classes=40, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    features, embedding, bias = (
        torch.randn(shape, generator=generator, dtype=dtype) for shape in ((rows, dims), (classes, dims), (classes,))
    )
    return features, torch.randint(0, classes, (rows,), generator=generator), embedding, bias


def loop(features, target, embedding, bias, distribution, sampled, draws):
    """Return the loss of each row in Python's floats, from the paper's formula."""
    losses = []
    for row, true in zip(features.tolist(), target.tolist(), strict=True):
        scores = []
        for index in [true, *(index for index in sampled.tolist() if index != true)]:
            score = sum(x * w for x, w in zip(row, embedding[index].tolist(), strict=True)) + bias[index].item()
            probability = distribution.probability(torch.tensor([index])).item()
            scores.append(score - math.log(1 - (1 - probability) ** draws))
        losses.append(math.log(sum(map(math.exp, scores))) - scores[0])
    return torch.tensor(losses, dtype=torch.float64)


@pytest.mark.parametrize("distribution", [LogUniform(40), Uniform(40), ByFrequency(torch.arange(1.0, 41))])
def test_equals_the_formula(distribution):
    features, target, embedding, bias = problem()
    torch.manual_seed(1)
    sampled, draws = distribution.sample(15)
    assert torch.isin(target, sampled).any()  # accidental hits
    torch.manual_seed(1)
    loss = sampled_softmax_loss(
        features, target, embedding, bias, num_sampled=15, distribution=distribution, reduction="none"
    )
    expected = loop(features, target, embedding, bias, distribution, sampled, draws)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)  # probabilities are float32


def test_equals_tensorflow():
    """Recorded from TensorFlow 2.21, which does not live in one process with triton.

    ``tf.nn.sampled_softmax_loss(..., sampled_values=(sampled, true counts, sampled counts))`` in float64.
    """

    class Given(LogUniform):
        def sample(self, num_sampled):
            return ClassSample(torch.tensor([3, 0, 25, 1, 12, 8]), 9)

    def table(rows, columns, step):
        return (torch.arange(rows * columns, dtype=torch.float64) * step).sin().view(rows, columns)

    loss = sampled_softmax_loss(
        table(4, 3, 0.7),
        torch.tensor([0, 7, 39, 12]),  # the first and the last are accidental hits
        table(40, 3, 1.3),
        table(40, 1, 0.9).flatten(),
        num_sampled=6,
        distribution=Given(40),
        reduction="none",
    )
    expected = torch.tensor([2.713768, 1.094561, 2.600516, 4.491724], dtype=torch.float64)
    torch.testing.assert_close(loss, expected, rtol=0, atol=2e-6)


def test_expected_counts_equal_tensorflows():
    """Recorded from ``tf.random.log_uniform_candidate_sampler([classes], 5, 50, True, 1000, seed=1)``, of 59 draws."""
    counts = LogUniform(1000).expected_count(torch.tensor([0, 1, 10, 100, 999]), draws=59)
    expected = torch.tensor([0.998046, 0.971799, 0.526587, 0.0807504, 0.00849991])
    torch.testing.assert_close(counts, expected, rtol=2e-5, atol=0)


@pytest.mark.parametrize("num_sampled", [40, 1000])
def test_all_classes_are_the_full_softmax(num_sampled):
    given = problem()
    target = given[1]
    gradients = []
    for sampled in (True, False):
        features, embedding, bias = (each.clone().requires_grad_() for each in (given[0], *given[2:]))
        if sampled:
            options = {"num_sampled": num_sampled, "distribution": LogUniform(40)}
            loss = sampled_softmax_loss(features, target, embedding, bias, **options)
        else:
            loss = F.cross_entropy(features @ embedding.T + bias, target)
        loss.backward()
        gradients.append((loss.detach(), features.grad, embedding.grad, bias.grad))
    torch.testing.assert_close(gradients[0], gradients[1])


def mean_gradient(features, target, embedding, bias, num_sampled, rounds=300):
    features = features.clone().requires_grad_()
    torch.manual_seed(0)
    for _ in range(rounds):
        options = {"num_sampled": num_sampled, "distribution": LogUniform(len(embedding))}
        (sampled_softmax_loss(features, target, embedding, bias, **options) / rounds).backward()
    return features.grad


def test_expected_gradient_tends_to_the_full_one():
    features, target, embedding, bias = problem(64, 8)
    leaf = features.clone().requires_grad_()
    F.cross_entropy(leaf @ embedding.T + bias, target).backward()
    errors = []
    for num_sampled in (5, 15, 25, 38):
        gradient = mean_gradient(features, target, embedding, bias, num_sampled)
        errors.append(((gradient - leaf.grad).norm() / leaf.grad.norm()).item())
        assert F.cosine_similarity(gradient.flatten(), leaf.grad.flatten(), dim=0) > 0.8
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.04


def test_the_right_scores_are_where_training_rests():
    """Labels drawn from the model's own probabilities leave hardly an expected gradient, as in the full loss.

    Without the correction for how often classes are drawn, frequent ones would be pushed down.
    """
    features, _, embedding, _ = problem(8000, 8, 100)
    features, bias = features / 2, -torch.arange(1.0, 101).log()
    generator = torch.Generator().manual_seed(0)
    target = torch.multinomial((features @ embedding.T + bias).softmax(1), 1, generator=generator).squeeze(1)

    def pull(distribution):
        leaf = bias.clone().requires_grad_()
        torch.manual_seed(0)
        for _ in range(30):
            options = {"num_sampled": 20, "distribution": distribution}
            (sampled_softmax_loss(features, target, embedding, leaf, **options) / 30).backward()
        return leaf.grad.norm()

    class Uncorrected(LogUniform):
        def expected_count(self, classes, draws):
            return torch.ones(len(classes))

    assert pull(LogUniform(100)) < 0.25 * pull(Uncorrected(100))


def test_sparse_gradient_holds_only_the_rows_that_were_looked_at():
    gradients = {}
    for sparse in (True, False):
        torch.manual_seed(0)
        loss = SampledSoftmaxLoss(8, 1000, num_sampled=20, sparse=sparse)
        loss(torch.ones(6, 8), torch.tensor([0, 1, 2, 2, 999, -100])).backward()
        gradients[sparse] = (loss.weight.grad, loss.bias.grad)
    for sparse, dense in zip(*gradients.values(), strict=True):
        assert sparse._nnz() == 26
        torch.testing.assert_close(sparse.to_dense(), dense)


@pytest.mark.parametrize(
    "optimizer", [torch.optim.SGD, torch.optim.SparseAdam, torch.optim.Adagrad], ids=lambda each: each.__name__
)
def test_optimizers_that_take_sparse_gradients(optimizer):
    torch.manual_seed(0)
    loss = SampledSoftmaxLoss(8, 100, num_sampled=30)
    steps = optimizer(loss.parameters(), lr=0.1)
    features, target = torch.randn(10, 8), torch.arange(10)
    before = loss.eval()(features, target)
    for _ in range(20):
        steps.zero_grad()
        loss.train()(features, target).backward()
        steps.step()
    assert loss.eval()(features, target) < before


def test_a_step_takes_no_memory_that_grows_with_the_classes():
    """What torch allocates on the CPU, summed up, is the oracle."""
    peaks = []
    for classes in (10_000, 500_000):
        loss = SampledSoftmaxLoss(8, classes, num_sampled=100, bias=True)
        optimizer = torch.optim.SGD(loss.parameters(), lr=0.1)
        features, target = torch.randn(32, 8), torch.randint(0, classes, (32,))
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
            loss(features, target).backward()
            optimizer.step()
        now = peak = 0
        for event in profiled.profiler.kineto_results.events():
            if event.name() == "[memory]":
                now += event.nbytes()
                peak = max(peak, now)
        peaks.append(peak)
    assert 0 < peaks[1] < 1.5 * peaks[0]
    assert peaks[1] < loss.bias.nbytes / 4


def test_eval_and_prediction_look_at_all_classes(monkeypatch):
    features, target, embedding, bias = problem(dtype=torch.float32)
    loss = SampledSoftmaxLoss(5, 40, num_sampled=3).eval()
    loss.load_state_dict({"weight": embedding, "bias": bias})  # those of nn.Linear
    logits = F.linear(features, embedding, bias)
    torch.testing.assert_close(loss(features, target), F.cross_entropy(logits, target))
    torch.testing.assert_close(loss.log_prob(features), logits.log_softmax(1))
    for values in (1, 100, 1 << 20):
        monkeypatch.setattr("cvplugins.losses.sampled_softmax.VALUES_AT_ONCE", values)
        assert loss.predict(features).equal(logits.argmax(1))
    assert loss.predict(features[:0]).shape == (0,)


def test_half_parameters_are_computed_in_float32():
    features, target, _, _ = problem(dtype=torch.float32)
    loss = SampledSoftmaxLoss(5, 40, num_sampled=40, sampling=torch.arange(1.0, 41)).half()
    value = loss(features.half(), target)
    value.backward()
    assert value.dtype == torch.float32
    assert loss.weight.grad.dtype == torch.float16


def test_without_bias():
    features, target, embedding, _ = problem(dtype=torch.float32)
    loss = SampledSoftmaxLoss(5, 40, num_sampled=40, bias=False)
    loss.load_state_dict({"weight": embedding})
    torch.testing.assert_close(loss(features, target), F.cross_entropy(features @ embedding.T, target))


def test_wrong_options_are_named():
    with pytest.raises(ValueError, match="num_sampled must be at least 1, not 0"):
        SampledSoftmaxLoss(5, 40, num_sampled=0)
    loss = SampledSoftmaxLoss(5, 40)
    for module in (loss, loss.eval()):
        with pytest.raises(ValueError, match=r"features \(2, 4\) does not fit the classes' \(40, 5\)"):
            module(torch.zeros(2, 4), torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match="does not fit the distribution's 41 classes"):
        sampled_softmax_loss(torch.zeros(1, 5), torch.tensor([0]), loss.weight, num_sampled=2, distribution=Uniform(41))
