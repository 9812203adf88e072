"""
Localisation: does a token still know its place?
================================================

The plot shows CKA, over images, between a token of a layer and each patch of the input image. A
token that keeps its place is brightest inside its frame.
"""

import repsim
from digit_networks import trained

networks = trained()
result = repsim.token_localization(
    networks.vit, networks.batches(), "blocks", name="ViT", progress=False
)
repsim.plot.localization(result, layer="blocks.0")

# %%
# The same for the last block:

repsim.plot.localization(result, layer="blocks.5")

# %%
# ``hit_rate`` is the share of tokens whose most similar patch is their own; ``chance`` is that
# share by chance:

result[["hit_rate", "chance", "argmax_distance"]].to_dataframe()[
    ["hit_rate", "chance", "argmax_distance"]
].round(3)
