"""
Layer match: how deep is the most similar layer?
================================================

For each layer of x, the plot shows where in y its best match lies. On the diagonal, both networks
reach it at the same relative depth; below the diagonal, y reaches it earlier.
"""

import repsim
from digit_networks import trained

networks = trained()
result = repsim.compare(
    networks.cnn, networks.vit, data=networks.batches(), names=("CNN", "ViT"), progress=False
)
repsim.plot.layer_match(result)

# %%
# These are the numbers of the plot. The best match is not always a good match, so look at its CKA.

match = repsim.layer_match(result)
match[["match", "cka", "depth_x", "depth_y"]].to_dataframe().round(2).iloc[::4]

# %%
# **The control** is the same two networks before training.

result = repsim.compare(
    networks.untrained_cnn,
    networks.untrained_vit,
    data=networks.batches(),
    names=("untrained CNN", "untrained ViT"),
    progress=False,
)
repsim.plot.layer_match(result)
