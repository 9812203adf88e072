"""Token localisation pair by pair: minibatch CKA of a token with a patch, in float64 loops."""

import math

import numpy as np

from reference.kernels import centred, linear
from reference.minibatch import minibatch_cka


def patches_of(images, rows, columns, frames=1):
    """The pixels of each patch, row by row, of images (n, c, height, width).

    Those of videos (n, c, frames, height, width) come frame by frame.
    """
    if images.ndim == 5:
        length = images.shape[2]
        return [
            patch
            for f in range(frames)
            for patch in patches_of(
                images[:, :, f * length // frames : (f + 1) * length // frames].reshape(
                    len(images), -1, *images.shape[3:]
                ),
                rows,
                columns,
            )
        ]
    _, _, height, width = images.shape
    return [
        images[
            :,
            :,
            r * height // rows : (r + 1) * height // rows,
            k * width // columns : (k + 1) * width // columns,
        ].reshape(len(images), -1)
        for r in range(rows)
        for k in range(columns)
    ]


def cka(batches_of_tokens, batches_of_images, rows, columns, frames=1):
    """All pairs, from batches of tokens (n, tokens, d) and images or videos."""
    patches = [patches_of(images, rows, columns, frames) for images in batches_of_images]
    count = batches_of_tokens[0].shape[1]
    out = np.empty((count, frames * rows * columns))
    for t in range(count):
        for q in range(frames * rows * columns):
            out[t, q] = minibatch_cka(
                [tokens[:, t] for tokens in batches_of_tokens],
                [each[q] for each in patches],
                lambda x: linear(centred(x)),
            )
    return out


def hits(values, prefix, rows, columns, height, width):
    """Hit rate, chance and distances where tokens and patches share one grid; NaN left out."""
    defined = [q for q in range(rows * columns) if not np.isnan(values[:, q]).all()]

    def centre(q):
        r, k = divmod(q, columns)
        return (r + 0.5) * height / rows, (k + 0.5) * width / columns

    found, distances, by_chance = [], [], []
    for own in range(rows * columns):
        row = values[prefix + own]
        if math.isnan(row[own]):
            continue
        best = max(defined, key=lambda q: row[q])
        found.append(best == own)
        distances.append(math.dist(centre(best), centre(own)))
        by_chance += [math.dist(centre(q), centre(own)) for q in defined]
    return {
        "hit_rate": sum(found) / len(found),
        "chance": 1 / len(defined),
        "argmax_distance": sum(distances) / len(distances),
        "chance_distance": sum(by_chance) / len(by_chance),
    }
