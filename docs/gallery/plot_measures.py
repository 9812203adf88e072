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
# A metric can be embedded in a plane. The estimator is biased, because only then is the angle a
# metric. The line follows the order of the blocks.

angles = repsim.pairwise(layers, measure="angular_cka", estimator="biased")
ax = repsim.plot.embedding(angles, title="The blocks of a ViT, by angular CKA")
ax.plot(*ax.lines[0].get_data(), color="0.8", zorder=1)
ax
