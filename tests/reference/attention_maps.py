"""Attention maps as plain loops: distance, entropy and prefix mass of one head, rollout of layers.

One head is (tokens, tokens): prefix tokens, then patches row by row.
"""

import math


def cells(grid):
    return [(r, c) for r in range(grid[0]) for c in range(grid[1])]


def distance(one, other, patch_size):
    return math.sqrt(
        (patch_size[0] * (one[0] - other[0])) ** 2 + (patch_size[1] * (one[1] - other[1])) ** 2
    )


def mean_distance(head, grid, patch_size=(1, 1), prefix=0, renormalize=False):
    """Mean over the patches that ask; renormalised, over those that attend to a patch at all."""
    values = []
    for i, asks in enumerate(cells(grid)):
        total = mass = 0.0
        for j, seen in enumerate(cells(grid)):
            weight = float(head[prefix + i][prefix + j])
            total += weight * distance(asks, seen, patch_size)
            mass += weight
        if not renormalize:
            values.append(total)
        elif mass > 0:
            values.append(total / mass)
    return sum(values) / len(values) if values else math.nan


def entropy(head, prefix=0):
    rows = [
        -sum(float(w) * math.log(float(w)) for w in row if float(w) > 0) for row in head[prefix:]
    ]
    return sum(rows) / len(rows)


def prefix_mass(head, prefix):
    rows = [sum(float(w) for w in row[:prefix]) for row in head[prefix:]]
    return sum(rows) / len(rows)


def rollout(layers):
    """Abnar & Zuidema 2020, Sec. 3; each layer is (heads, tokens, tokens)."""
    tokens = len(layers[0][0])
    out = [[float(i == j) for j in range(tokens)] for i in range(tokens)]
    for heads in layers:
        mixed = []
        for i in range(tokens):
            row = [
                0.5 * sum(float(head[i][j]) for head in heads) / len(heads) + 0.5 * (i == j)
                for j in range(tokens)
            ]
            mixed.append([value / sum(row) for value in row])
        out = [
            [sum(mixed[i][k] * out[k][j] for k in range(tokens)) for j in range(tokens)]
            for i in range(tokens)
        ]
    return out


def uniform_distance(grid, patch_size=(1, 1)):
    """Mean over all ordered pairs of patches, one by one."""
    every = cells(grid)
    total = sum(distance(one, other, patch_size) for one in every for other in every)
    return total / len(every) ** 2
