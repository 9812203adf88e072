"""
Localisation: does a token still know its place?
================================================

CKA between a token at some layer and each patch of the input image, over images. A token that kept
its place is brightest in its frame.
"""

import repsim
from digit_networks import trained

networks = trained()
result = repsim.token_localization(
    networks.vit, networks.batches(), "blocks.?", name="ViT", progress=False
)
repsim.plot.localization(result, layer="blocks.0")

# %%
# At the last block:

repsim.plot.localization(result, layer="blocks.5")

# %%
# For how many tokens the most similar patch is their own, and for how many it would be by chance:

result[["hit_rate", "chance", "argmax_distance"]].to_dataframe()[
    ["hit_rate", "chance", "argmax_distance"]
].round(3)
