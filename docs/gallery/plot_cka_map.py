"""
CKA map: which layers are alike?
================================

A map compares every layer of one network with every layer of another. The lower left corner
compares the first layers of both.
"""

import repsim
from digit_networks import trained

networks = trained()  # two small networks, trained on digits

# %%
# **A network with itself.** Layers run from low to high on both axes; the diagonal is 1. The stages
# of the CNN show as blocks.

result = repsim.compare(networks.cnn, data=networks.batches(), progress=False)
repsim.plot.heatmap(result, title="CNN with itself", width=7)

# %%
# **Two networks.** Their layers may differ in size and kind.

result = repsim.compare(
    networks.cnn, networks.vit, data=networks.batches(), names=("CNN", "ViT"), progress=False
)
repsim.plot.heatmap(result, title="CNN with ViT", width=7)

# %%
# The result is a labelled ``xarray.Dataset`` with the standard error of each entry.

result.cka.sel(layer_x="stage1.1").to_series().round(3).tail(5)
