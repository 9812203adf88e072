"""Ridge regression to one-vs-all targets, as plain loops and a linear solve; no repsim."""

import numpy as np


def standardised(x):
    """Features minus their mean over their standard deviation; constant features are zero."""
    n, p = x.shape
    out = np.zeros((n, p))
    means, deviations = [], []
    for j in range(p):
        mean = sum(float(v) for v in x[:, j]) / n
        variance = sum((float(v) - mean) ** 2 for v in x[:, j]) / n
        means.append(mean)
        deviations.append(variance**0.5)
        if len(set(x[:, j].tolist())) > 1:
            for i in range(n):
                out[i, j] = (float(x[i, j]) - mean) / deviations[-1]
    return out, means, deviations


def targets(labels, n_classes):
    """+1 for a sample's own class, -1 for the others."""
    return np.array([[1.0 if label == k else -1.0 for k in range(n_classes)] for label in labels])


def fit(x, labels, n_classes, ridge, standardize=True):
    """Weights and bias on raw features, from the normal equations of the augmented problem.

    The bias is a column of ones that the ridge leaves out.
    """
    x = np.asarray(x, dtype=np.float64)
    n, p = x.shape
    if standardize:
        z, means, deviations = standardised(x)
    else:
        z, means, deviations = x, [0.0] * p, [1.0] * p
    with_ones = np.concatenate([z, np.ones((n, 1))], axis=1)
    normal = np.zeros((p + 1, p + 1))
    for row in with_ones:
        normal += np.outer(row, row)
    normal += np.diag([float(ridge)] * p + [0.0])
    solution = np.linalg.solve(normal, with_ones.T @ targets(labels, n_classes))
    weights = np.zeros((p, n_classes))
    bias = solution[p].copy()
    for j in range(p):
        if not standardize or np.any(z[:, j]):
            weights[j] = solution[j] / deviations[j]
            bias -= means[j] * weights[j]
    return weights, bias


def predict(x, weights, bias):
    scores = np.asarray(x, dtype=np.float64) @ weights + bias
    return np.array([int(np.argmax(row)) for row in scores])


def accuracy(x, labels, weights, bias):
    return sum(a == b for a, b in zip(predict(x, weights, bias), labels, strict=True)) / len(labels)


def squared_error(x, labels, weights, bias):
    scores = np.asarray(x, dtype=np.float64) @ weights + bias
    return float(((scores - targets(labels, weights.shape[1])) ** 2).sum())


def held_out(labels, part):
    """Of the samples of each class, numbered from 1, those at which part·number passes a whole."""
    seen = {}
    out = []
    for label in labels:
        number = seen[label] = seen.get(label, 0) + 1
        out.append(int(number * part) > int((number - 1) * part))
    return np.array(out)


def probe(train, labels, test, test_labels, ridges, part, n_classes, standardize=True):
    """Test accuracy, chosen ridge and held-out accuracy of one layer and token."""
    train, labels = np.asarray(train, dtype=np.float64), np.asarray(labels)
    held = held_out(labels.tolist(), part)
    best = None
    for ridge in ridges:
        model = fit(train[~held], labels[~held], n_classes, ridge, standardize)
        score = accuracy(train[held], labels[held], *model)
        error = squared_error(train[held], labels[held], *model)
        if best is None or (score, -error) > (best[0], -best[1]):
            best = (score, error, ridge)
    model = fit(train, labels, n_classes, best[2], standardize)
    return accuracy(test, test_labels, *model), best[2], best[0]
