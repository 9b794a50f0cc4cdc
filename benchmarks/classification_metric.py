"""Exact AUC against scikit-learn and top-1/5 against torchmetrics, interleaved in one run, the values compared.

python benchmarks/classification_metric.py [--repeats 7]
"""

import argparse
import statistics
import time

import numpy as np
import sklearn
import torch
import torchmetrics
from sklearn.metrics import roc_auc_score
from torchmetrics.functional.classification import multiclass_accuracy

from cvplugins.metrics import ClassificationMetric, rank_counts


def race(name, ours, theirs, tolerance, repeats):
    """Print the medians of both and how far their values differ."""
    seconds = {ours: [], theirs: []}
    for _ in range(repeats):
        values = []
        for call, spent in seconds.items():
            start = time.perf_counter()
            values.append(np.array(call()))
            spent.append(time.perf_counter() - start)
        difference = np.abs(values[0] - values[1]).max()
        assert difference <= tolerance, (name, values)
    own, other = (1000 * statistics.median(spent) for spent in seconds.values())
    print(f"{name:<32}{own:>9.1f} ms{other:>9.1f} ms{other / own:>7.0f} x   difference {difference:.1e}", flush=True)


def main():
    """Run every row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    print(f"scikit-learn {sklearn.__version__}, torchmetrics {torchmetrics.__version__}, NumPy {np.__version__}")
    generator = np.random.default_rng(0)
    positive = generator.random(10**6) < 0.3
    scores = generator.random(10**6)
    signed = generator.normal(size=10**6)
    rows = {
        "AUC, float32": scores.astype(np.float32),
        "AUC, float64": scores,
        "AUC, 1,000 values": np.round(scores, 3).astype(np.float32),
        "AUC, float32, negative too": signed.astype(np.float32),
        "AUC, float64, negative too": signed,
    }
    for name, each in rows.items():
        race(
            name,
            lambda x=each: rank_counts(x, positive).roc_auc(),
            lambda x=each: roc_auc_score(positive, x),
            1e-12,
            repeats,
        )
    scores = generator.random((50_000, 1000), np.float32)
    scores /= scores.sum(axis=1, keepdims=True)
    labels = generator.integers(0, 1000, 50_000)
    tensors = torch.from_numpy(scores), torch.from_numpy(labels)

    def ours():
        metric = ClassificationMetric([str(index) for index in range(1000)], curves=False)
        metric.update(scores, labels)
        top_k = metric.compute().top_k
        return top_k[1], top_k[5]

    def theirs():
        return [float(multiclass_accuracy(*tensors, 1000, average="micro", top_k=k)) for k in (1, 5)]

    race("top-1/5, 50k x 1000 (and more)", ours, theirs, 1e-7, repeats)


if __name__ == "__main__":
    main()
