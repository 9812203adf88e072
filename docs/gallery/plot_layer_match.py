"""
Layer match: how deep is the most similar layer?
================================================

For each layer of x, where in y its best match lies. On the diagonal two networks process in step;
below it, y is ahead.
"""

import repsim
from digit_networks import trained

networks = trained()
result = repsim.compare(
    networks.cnn, networks.vit, data=networks.batches(), names=("CNN", "ViT"), progress=False
)
repsim.plot.layer_match(result)

# %%
# The numbers behind it. A best match is not always a good one: look at its CKA.

match = repsim.layer_match(result)
match[["match", "cka", "depth_x", "depth_y"]].to_dataframe().round(2).iloc[::4]

# %%
# **The control.** The same two networks before training.

result = repsim.compare(
    networks.untrained_cnn,
    networks.untrained_vit,
    data=networks.batches(),
    names=("untrained CNN", "untrained ViT"),
    progress=False,
)
repsim.plot.layer_match(result)
