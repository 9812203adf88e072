"""Minibatch CKA and its standard error (Nguyen, Raghu & Kornblith 2021; delete-one jackknife)."""

import math

from reference.hsic import unbiased_song
from reference.kernels import linear


def samples_weight(n):
    """n(n-3): the weight under which a batch counts as its sum of products."""
    return n * (n - 3)


def minibatch_cka(batches_x, batches_y, kernel=linear, weight=samples_weight):
    """Sums of weighted unbiased HSICs of the batches; batches below 4 carry no information."""
    xy = xx = yy = 0.0
    for x, y in zip(batches_x, batches_y, strict=True):
        n = len(x)
        if n < 4:
            continue
        k, l = kernel(x), kernel(y)  # noqa: E741
        xy += weight(n) * unbiased_song(k, l)
        xx += weight(n) * unbiased_song(k, k)
        yy += weight(n) * unbiased_song(l, l)
    return xy / (math.sqrt(xx) * math.sqrt(yy))


def jackknife_standard_error(batches_x, batches_y, kernel=linear, weight=samples_weight):
    """sqrt((k-1)/k sum_b (theta_(-b) - mean)^2) over the k batches that count."""
    pairs = [(x, y) for x, y in zip(batches_x, batches_y, strict=True) if len(x) >= 4]
    count = len(pairs)
    left_out = []
    for b in range(count):
        kept = pairs[:b] + pairs[b + 1 :]
        left_out.append(minibatch_cka([x for x, _ in kept], [y for _, y in kept], kernel, weight))
    mean = sum(left_out) / count
    return math.sqrt((count - 1) / count * sum((theta - mean) ** 2 for theta in left_out))
