"""
Attention distance: how far does each head look?
================================================

For every head, the mean distance in pixels between a patch and the patches that it attends to. The
model is unmodified and keeps its fused attention kernels.
"""

# sphinx_gallery_thumbnail_number = 2

import repsim
from digit_networks import trained

networks = trained()
distance = repsim.attention_distance(
    networks.vit, networks.batches(), layers="blocks.*.attn", progress=False
)
repsim.plot.attention_distance(distance, kind="layers", variable="renormalised")

# %%
# The dashed line is the distance of a head that attends equally to all tokens. On digits of 4 × 4
# patches nearly all heads of this small ViT look that far, because the grid leaves no room for
# local heads. Entropy shows the same (at most log 17 = 2.83 nats for 17 tokens). ``prefix_mass`` is
# the share of attention that went to the CLS token.

summary = ["renormalised", "entropy", "prefix_mass"]
distance[summary].mean("head").to_dataframe()[summary].round(2)

# %%
# **In windows.** repsim finds grid, window and stride. Swin attends inside windows of 7 × 7 tokens,
# and a token covers more pixels in each stage.

import timm
import torch

swin = timm.create_model("swin_tiny_patch4_window7_224", depths=(1, 1, 2, 1), embed_dim=24)
images = [torch.randn(2, 3, 224, 224)]
repsim.plot.attention_distance(
    repsim.attention_distance(swin, images, progress=False, name="Swin, random weights"),
    kind="layers",
)
