"""
Head subsets: which heads see like a CNN?
=========================================

The heads of one attention layer, from the most local to the most global, in subsets, against layers
of another network. A line that falls says that the local heads are the ones that resemble it.
"""

import repsim
from digit_networks import trained

networks = trained()
result = repsim.head_subset_cka(
    networks.vit,
    networks.cnn,
    networks.batches(),
    layer="blocks.0.attn",
    layers_y=["stage1.1", "stage3.1"],
    names=("ViT", "CNN"),
    progress=False,
)
repsim.plot.head_subsets(result)

# %%
# One pass over the data is enough for every subset: Grams of features side by side add up.

result.cka.sel(layer_y="stage1.1").to_dataframe()[["kind", "heads", "mean_distance", "cka"]].round(
    3
)
