"""FID and inception score against analytic cases, the formulas of pytorch-fid and torchmetrics, and loops."""

import itertools
import json
import math
import pickle

import numpy as np
import pytest
import scipy.linalg
import torch
from helpers import run_ranks

from cvplugins.errors import UserError
from cvplugins.metrics import FeatureStatistics, GenerationMetric, InceptionFeatures, frechet_distance, inception_score
from cvplugins.metrics.frechet import feature_statistics


def random_features(seed, count, size, scale=1.0):
    generator = np.random.default_rng(seed)
    mixing = np.random.default_rng(7).normal(size=(size, size)) / math.sqrt(size)
    return scale * generator.normal(size=(count, size)) @ mixing + 0.1 * seed


def exact_sample(mean, covariance, count, seed=0):
    """Features of which mean and covariance are exactly these, up to rounding."""
    generator = np.random.default_rng(seed)
    noise = generator.normal(size=(count, len(mean)))
    noise -= noise.mean(axis=0)
    white = np.linalg.qr(noise)[0] * math.sqrt(count - 1)
    values, vectors = np.linalg.eigh(covariance)
    return white @ (vectors * np.sqrt(values)).T + mean


def by_root(one, other):
    """The formula as papers write it, by the root of a matrix."""
    a, b = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    root = scipy.linalg.sqrtm(a @ b)
    return ((one.mean(0) - other.mean(0)) ** 2).sum() + np.trace(a + b - 2 * root.real)


@pytest.mark.parametrize("counts", [(500, 400), (33, 1000)])
def test_distance_equals_the_formula(counts):
    one, other = random_features(1, counts[0], 32), random_features(2, counts[1], 32, 1.3)
    found = frechet_distance(one, other)
    assert found.total == pytest.approx(by_root(one, other), rel=1e-9)
    assert found.mean == pytest.approx(((one.mean(0) - other.mean(0)) ** 2).sum(), rel=1e-12)
    assert frechet_distance(feature_statistics(one), other).total == pytest.approx(found.total, rel=1e-12)


@pytest.mark.parametrize("count", [3, 10, 11, 12, 50])
def test_normal_distributions_whose_distance_is_known(count):
    """Covariances that commute: the squared differences of means and of standard deviations."""
    size = min(10, count - 1)
    generator = np.random.default_rng(count)
    turn = np.linalg.qr(generator.normal(size=(size, size)))[0]
    spread, other_spread = generator.uniform(0.5, 2, (2, size))
    mean, other_mean = generator.normal(size=(2, size))
    one = exact_sample(mean, turn @ np.diag(spread**2) @ turn.T, count, 1)
    other = exact_sample(other_mean, turn @ np.diag(other_spread**2) @ turn.T, count + 3, 2)
    found = frechet_distance(one, other)
    assert found.mean == pytest.approx(((mean - other_mean) ** 2).sum(), rel=1e-12)
    assert found.covariance == pytest.approx(((spread - other_spread) ** 2).sum(), rel=1e-11)


@pytest.mark.parametrize("size", [40, 200])
def test_few_images_of_many_features(size):
    """Features that fill 8 of many dimensions have the distance of those 8, where a root of a matrix loses digits."""
    one, other = random_features(1, 30, 8), random_features(2, 25, 8, 1.3)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(size, size)))[0][:8]
    expected = by_root(one, other)
    assert frechet_distance(one @ turn, other @ turn).total == pytest.approx(expected, rel=1e-9)
    through = frechet_distance(feature_statistics(one @ turn), feature_statistics(other @ turn)).total
    assert through == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("counts", [(400, 300, 32), (40, 30, 64)])
def test_peers_agree(counts):
    one, other = random_features(1, counts[0], counts[2]), random_features(2, counts[1], counts[2])
    a, b = feature_statistics(one), feature_statistics(other)
    found, tolerance = frechet_distance(one, other).total, 1e-9 if counts[0] > counts[2] else 1e-5
    peer = pytest.importorskip("torchmetrics.image.fid")
    tensors = [torch.from_numpy(each) for each in (a.mean, a.covariance, b.mean, b.covariance)]
    assert float(peer._compute_fid(*tensors)) == pytest.approx(found, rel=tolerance)
    peer = pytest.importorskip("pytorch_fid.fid_score")
    expected = peer.calculate_frechet_distance(a.mean, a.covariance, b.mean, b.covariance)
    assert expected == pytest.approx(found, rel=tolerance)


def test_distance_of_equal_sets_is_nothing():
    for count in (5, 100):
        features = random_features(3, count, 20)
        assert 0 <= frechet_distance(features, features).total < 1e-11
        assert 0 <= frechet_distance(features, feature_statistics(features)).total < 1e-6


def test_dead_features_and_float32():
    one, other = (random_features(seed, 300, 16).astype(np.float32) for seed in (1, 2))
    one[:, 3] = other[:, 3] = 0
    kept = np.arange(16) != 3
    expected = by_root(one[:, kept].astype(np.float64), other[:, kept].astype(np.float64))
    assert frechet_distance(one, other).total == pytest.approx(expected, rel=1e-7)


def probabilities(seed, count, classes=5):
    return np.random.default_rng(seed).dirichlet(np.full(classes, 0.3), count)


def score_by_loop(rows, splits):
    scores = []
    for split in range(splits):
        part = [rows[index] for index in range(len(rows) * split // splits, len(rows) * (split + 1) // splits)]
        mean = [math.fsum(column) / len(part) for column in zip(*part, strict=True)]
        divergence = [
            math.fsum(p * (math.log(p) - math.log(q)) for p, q in zip(row, mean, strict=True) if p > 0) for row in part
        ]
        scores.append(math.exp(math.fsum(divergence) / len(part)))
    return scores


@pytest.mark.parametrize(("count", "splits"), [(20, 1), (23, 4), (10, 10), (101, 10)])
def test_score_equals_a_loop(count, splits):
    rows = probabilities(count, count)
    rows[0] = [0, 1, 0, 0, 0]
    np.testing.assert_allclose(inception_score(rows, splits), score_by_loop(rows.tolist(), splits), rtol=1e-12)


def test_scores_that_are_known():
    np.testing.assert_allclose(inception_score(np.tile(np.eye(7), (3, 1)), 1), [7], rtol=1e-14)
    np.testing.assert_allclose(inception_score(np.full((30, 7), 1 / 7), 3), [1, 1, 1], rtol=1e-14)
    np.testing.assert_allclose(inception_score(np.tile([0.0, 1.0], (10, 1)), 2), [1, 1], rtol=1e-14)
    assert np.isnan(inception_score(np.eye(9), 10)).all()


def images(count=23, size=6, real=False):
    features = random_features(1 + real, count, size).astype(np.float32)
    return [(f"{index}.png", features[index], probabilities(index, 1)[0], real) for index in range(count)]


def metric_of(chosen, **options):
    metric = GenerationMetric(splits=4, **options)
    for name, features, shares, real in chosen:
        metric.update([name], features[None], shares[None], real=real)
    return metric


def test_metric_equals_its_functions():
    fake, real = images(), images(30, real=True)
    result = metric_of(fake + real).compute()
    ordered = sorted(fake, key=lambda image: image[0])
    one, other = (np.stack([each[1] for each in part]).astype(np.float64) for part in (ordered, real))
    assert result.scalars()["FID"] == pytest.approx(by_root(one, other), rel=1e-7)
    rows = [each[2].tolist() for each in ordered]
    np.testing.assert_allclose(result.split_scores, score_by_loop(rows, 4), rtol=1e-12)
    assert result.scalars()["IS"] == pytest.approx(np.mean(result.split_scores))
    assert result.scalars()["IS_std"] == pytest.approx(np.std(result.split_scores))
    np.testing.assert_allclose(result.class_shares, np.mean(rows, axis=0))
    assert (result.num_generated, result.num_real) == (23, 30)


@pytest.mark.parametrize("size", [6, 40], ids=["many images", "few images"])
def test_order_batches_and_split_do_not_matter(size):
    everything = images(size=size) + images(30, size, real=True)
    expected = metric_of(everything).compute().as_dict()
    json.dumps(expected, allow_nan=False)
    for seed in range(5):
        generator = np.random.default_rng(seed)
        parts = [GenerationMetric(splits=4) for _ in range(4)]  # one stays empty
        for index in generator.permutation(len(everything)):
            name, features, shares, real = everything[index]
            parts[generator.integers(3)].update([name], features[None], shares[None], real=real)
        merged = parts.pop(generator.integers(4))
        for part in parts:
            merged.merge(pickle.loads(pickle.dumps(part)))
        assert merged.compute().as_dict() == expected
    batched = GenerationMetric(splits=4)
    for real in (True, False):
        chosen = [each for each in everything if each[3] is real]
        batch = [np.stack(column) for column in ([each[1] for each in chosen], [each[2] for each in chosen])]
        batched.update([each[0] for each in chosen], *batch, real=real)
    assert batched.compute().as_dict() == expected


def metric_on_a_rank(shares):
    from cvplugins.distributed import gather_objects, rank

    merged = GenerationMetric(splits=4)
    for image in itertools.chain.from_iterable(gather_objects(list(metric_of(shares[rank()]).images.values()))):
        merged.add(image)
    return merged.compute().as_dict()


@pytest.mark.distributed
def test_two_ranks_one_of_them_idle():
    everything = images() + images(30, real=True)
    expected = metric_of(everything).compute().as_dict()
    for shares in ([everything[9:], everything[:9]], [everything, []]):
        assert run_ranks(metric_on_a_rank, 2, shares) == [expected, expected]


def test_statistics_take_the_place_of_real_images(tmp_path):
    fake, real = images(), images(30, real=True)
    whole = metric_of(fake + real)
    whole.statistics().save(tmp_path / "real.npz")
    loaded = FeatureStatistics.load(tmp_path / "real.npz")
    found = metric_of(fake, real=loaded).compute()
    assert found.scalars()["FID"] == pytest.approx(whole.compute().scalars()["FID"], rel=1e-12)
    assert found.num_real == 0
    with pytest.raises(ValueError, match=r"real image 0\.png: statistics of the real images were given"):
        metric_of(real, real=loaded)
    with pytest.raises(UserError, match=r"none\.npz: there is no such file"):
        FeatureStatistics.load(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("mu")
    with pytest.raises(UserError, match=r"text\.npz cannot be read"):
        FeatureStatistics.load(tmp_path / "text.npz")
    np.savez(tmp_path / "odd.npz", mu=np.zeros(3), sigma=np.zeros((2, 2)))
    with pytest.raises(UserError, match="does not fit a covariance"):
        FeatureStatistics.load(tmp_path / "odd.npz")
    np.savez(tmp_path / "nan.npz", mu=np.zeros(2), sigma=np.full((2, 2), np.nan))
    with pytest.raises(UserError, match="not finite"):
        FeatureStatistics.load(tmp_path / "nan.npz")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_of_any_type(dtype):
    fake, real = (torch.from_numpy(random_features(seed, 20, 5)).to(dtype) for seed in (1, 2))
    metric = GenerationMetric()
    metric.update(range(20), fake)
    metric.update(range(20), real, real=True)
    expected = frechet_distance(fake.double().numpy(), real.double().numpy()).total
    assert metric.compute().scalars()["FID"] == pytest.approx(expected, rel=1e-12)
    assert metric.images[True, 0].features.dtype == (np.float64 if dtype is torch.float64 else np.float32)


def test_what_is_missing_is_undefined():
    assert GenerationMetric().compute().scalars() == {}
    json.dumps(GenerationMetric().compute().as_dict(), allow_nan=False)
    metric = GenerationMetric(splits=2)
    metric.update("abcd", probabilities=probabilities(0, 4))
    metric.update("abcd", features=random_features(0, 4, 3), real=True)
    assert metric.compute().scalars().keys() == {"IS", "IS_std"}
    metric.update(["e"], features=random_features(0, 1, 3))
    assert "FID" not in metric.compute().scalars()
    metric.update(["f"], features=random_features(1, 1, 3))
    assert "FID" in metric.compute().scalars()
    with pytest.raises(ValueError, match="needs the features of two images or more, not of 0"):
        GenerationMetric().statistics()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ((["a"], [[1.0, np.nan]]), "generated image a: features hold a number that is not finite"),
        ((["a", "b"], None, [[1.0, 0.0], [np.nan, 1.0]]), "generated image b: probabilities hold a number"),
        ((["a"], None, [[2.0, -1.0]]), "generated image a: probabilities have to be 0 or more with a sum of 1"),
        ((["a"], None, [[3.0, 1.0]]), "generated image a: probabilities .* not 4; give softmax"),
        ((["a"], [1.0, 2.0]), r"features have shape \(2,\); expected a row for each of 1 images"),
        ((["a", "b"], [[1.0]]), r"features have shape \(1, 1\); expected a row for each of 2"),
        ((["a", "a"], [[1.0], [2.0]]), "generated image a was added twice"),
    ],
)
def test_wrong_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        GenerationMetric().update(*call)


def test_wrong_options_and_sizes():
    with pytest.raises(ValueError, match="splits is 0"):
        GenerationMetric(splits=0)
    with pytest.raises(ValueError, match="differ in splits"):
        GenerationMetric(splits=1).merge(GenerationMetric(splits=2))
    metric = GenerationMetric()
    metric.update(["a"], [[1.0]])
    metric.update(["b"], [[1.0, 2.0]])
    with pytest.raises(ValueError, match="image b has 2 features, image a 1"):
        metric.compute()
    with pytest.raises(ValueError, match="2 features of one set do not fit 3 of the other"):
        frechet_distance(np.zeros((4, 2)), np.zeros((4, 3)))


@pytest.mark.slow
def test_inception_gives_what_torchvision_gives(tmp_path):
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    model = models.inception_v3(weights=None, init_weights=False)
    path = tmp_path / "inception.pth"
    torch.save(model.state_dict(), path)
    network = InceptionFeatures(path)
    images = torch.rand(2, 3, 80, 60)
    found = [network(255 * image, 255) for image in images]
    model.eval()
    model.transform_input = False
    pooled = []
    model.avgpool.register_forward_hook(lambda _module, _inputs, output: pooled.append(output.flatten(1)))
    scaled = torch.nn.functional.interpolate(images, (299, 299), mode="bilinear", align_corners=False)
    with torch.no_grad():
        logits = model(2 * scaled - 1)
    torch.testing.assert_close(torch.stack([each[0] for each in found]), pooled[0], rtol=1e-4, atol=1e-5)
    shares = torch.stack([each[1] for each in found])
    torch.testing.assert_close(shares, logits.double().softmax(1), rtol=1e-4, atol=1e-6)
    assert shares.sum(1).tolist() == pytest.approx([1, 1])
    with pytest.raises(ValueError, match=r"an image of shape \(3, H, W\), not \(1, 80, 60\)"):
        network(images[0, :1], 1.0)


def test_missing_weights_are_named(tmp_path):
    pytest.importorskip("torchvision")
    with pytest.raises(UserError, match=r"no\.pth: there is no such file"):
        InceptionFeatures(tmp_path / "no.pth")
    torch.save({"fc.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"other\.pth do not fit the backbone"):
        InceptionFeatures(tmp_path / "other.pth")
