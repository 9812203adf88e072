"""
Attention distance: how far does each head look?
================================================

The mean distance between a patch and the patches that it attends to, in pixels, of every head. The
model is as it came, fused attention kernels included.
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
# The dashed line is a head that attends to all tokens alike. On digits of 4 × 4 patches nearly all
# heads of this small ViT look that far: there is no room for local ones. Entropy tells the same (at
# most log 17 = 2.83 nats for 17 tokens), and ``prefix_mass`` how much went to the CLS token.

summary = ["renormalised", "entropy", "prefix_mass"]
distance[summary].mean("head").to_dataframe()[summary].round(2)

# %%
# **In windows.** Grid, window and stride are found by themselves. Swin attends inside windows of
# 7 × 7 tokens, whose pixels grow with the stage.

import timm
import torch

swin = timm.create_model("swin_tiny_patch4_window7_224", depths=(1, 1, 2, 1), embed_dim=24)
images = [torch.randn(2, 3, 224, 224)]
repsim.plot.attention_distance(
    repsim.attention_distance(swin, images, progress=False, name="Swin, random weights"),
    kind="layers",
)
