"""
Head subsets: which heads see like a CNN?
=========================================

The heads of one attention layer are ordered from the most local to the most global. Subsets of them
are compared with layers of another network. A falling line means that the local heads are the ones
that resemble that layer.
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
# One pass over the data is enough for all subsets, because the Gram of concatenated features is the
# sum of their Grams.

result.cka.sel(layer_y="stage1.1").to_dataframe()[["kind", "heads", "mean_distance", "cka"]].round(
    3
)
