"""Norm ratios of residual connections by plain loops (Raghu et al. 2021, section 5)."""

import math


def norm(vector):
    """Euclidean norm."""
    return math.sqrt(sum(float(v) ** 2 for v in vector))


def ratio(z, f):
    """Norm of the skip over norm of the branch."""
    return norm(z) / norm(f)


def branch_share(z, f):
    """Norm of the branch over norm of the sum."""
    return norm(f) / norm([float(a) + float(b) for a, b in zip(z, f, strict=True)])


def cosine(z, f):
    """Cosine of skip and branch."""
    return sum(float(a) * float(b) for a, b in zip(z, f, strict=True)) / (norm(z) * norm(f))


def means(skips, branches, statistic):
    """Mean over samples for each token; skips and branches are (samples, tokens, channels)."""
    n, n_tokens = len(skips), len(skips[0])
    return [
        sum(statistic(skips[i][t], branches[i][t]) for i in range(n)) / n for t in range(n_tokens)
    ]


def influence(x, y):
    """One minus the cosine of the input and the output of a block (Men et al. 2024)."""
    return 1 - cosine(x, y)


def angular(x, y):
    """The angle of two states of the stream over pi (Gromov et al. 2024)."""
    return math.acos(max(-1.0, min(1.0, cosine(x, y)))) / math.pi


def by_sequence(values):
    """Mean over all tokens and its standard error; values are one list of tokens per sequence."""
    n = len(values)
    sums, counts = [sum(each) for each in values], [len(each) for each in values]
    mean = sum(sums) / sum(counts)
    rest = sum((s - mean * c) ** 2 for s, c in zip(sums, counts, strict=True))
    return mean, math.sqrt(n / (n - 1) * rest) / sum(counts)
