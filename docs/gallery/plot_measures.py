"""
One map, many measures
======================

`repsim.pairwise` compares named arrays by any measure of the registry. Measures ignore different
changes, so they call different layers alike.
"""

import torch
import matplotlib.pyplot as plt

import repsim
from digit_networks import trained

networks = trained()
with torch.no_grad(), repsim.Recorder(networks.vit, "blocks", transform="cls") as recorder:
    networks.vit(networks.digits.test[:300])
layers = {name: value.numpy() for name, value in recorder.items()}

# %%
# Four measures compare the class token after each block.

figure = plt.figure(figsize=(8, 7), layout="constrained")
options = {
    "cka": {},
    "mutual_knn": {},
    "svcca": {"variance": 0.9},
    "rsa": {},
}
for ax, (name, chosen) in zip(figure.subplots(2, 2).flat, options.items()):
    repsim.plot.heatmap(repsim.pairwise(layers, measure=name, **chosen), ax=ax, title=name)
figure

# %%
# A metric can be embedded. Here classical scaling embeds the angular CKA between layers in two
# dimensions. The estimator is biased, because only then is it a metric.

import numpy as np

angles = repsim.pairwise(layers, measure="angular_cka", estimator="biased").values
centred = -0.5 * angles**2
centred = centred - centred.mean(0) - centred.mean(1)[:, None] + centred.mean()
values, vectors = np.linalg.eigh(centred)
x, y = (vectors[:, -2:] * np.sqrt(values[-2:])).T[::-1]

ax = plt.figure(figsize=(5, 3.4), layout="constrained").add_subplot()
ax.plot(x, y, "o-", color="#8a2b68")
for name, a, b in zip(layers, x, y):
    ax.annotate(name, (a, b), xytext=(6, 4), textcoords="offset points", fontsize=9)
ax.set_title("The blocks of a ViT, by angular CKA")
ax.set_aspect("equal", "datalim")
ax
