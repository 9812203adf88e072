"""Scaled dot-product attention of one head as plain loops, in float64: weights and output."""

import math


def weights(query, key, *, mask=None, is_causal=False, scale=None):
    """(queries, keys). A boolean mask says what takes part, another one is added to the scores."""
    scale = 1 / math.sqrt(len(query[0])) if scale is None else scale
    rows = []
    for i, q in enumerate(query):
        scores = []
        for j, k in enumerate(key):
            score = scale * sum(float(a) * float(b) for a, b in zip(q, k, strict=True))
            if is_causal and j > i:
                score = -math.inf
            if mask is not None and isinstance(entry := mask[i][j], bool):
                score = score if entry else -math.inf
            elif mask is not None:
                score += float(entry)
            scores.append(score)
        rows.append(softmax(scores))
    return rows


def softmax(scores):
    """A row without any key is all 0."""
    top = max(scores)
    if top == -math.inf:
        return [0.0] * len(scores)
    shifted = [math.exp(score - top) for score in scores]
    return [value / sum(shifted) for value in shifted]


def output(rows, value):
    """(queries, d)."""
    width = len(value[0])
    return [
        [sum(p * float(v[d]) for p, v in zip(row, value, strict=True)) for d in range(width)]
        for row in rows
    ]
