"""
CKA map: which layers are alike?
================================

Every layer of one network against every layer of another. The lower left corner is the lowest
layer of both.
"""

import repsim
from digit_networks import trained

networks = trained()  # two small networks, trained on digits

# %%
# **A network with itself.** Layers run from low to high on both axes; the diagonal is 1. The CNN
# falls into stages.

result = repsim.compare(networks.cnn, data=networks.batches(), progress=False)
repsim.plot.heatmap(result, title="CNN with itself")

# %%
# **Two networks.** The layers need not be of the same size or kind.

result = repsim.compare(
    networks.cnn, networks.vit, data=networks.batches(), names=("CNN", "ViT"), progress=False
)
repsim.plot.heatmap(result, title="CNN with ViT")

# %%
# The result is an ``xarray.Dataset``: labelled, with the standard error of each entry.

result.cka.sel(layer_x="stage1.1").to_series().round(3).tail(5)
