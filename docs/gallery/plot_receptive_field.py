"""
Effective receptive field: which pixels move a unit?
====================================================

The maps show the mean absolute gradient of the unit in the middle of a layer with respect to the
input. Each map sums to one; σ is its root mean square radius in pixels.
"""

import timm
import torch
import torchvision

import repsim

images = [torch.randn(4, 3, 64, 64)]

# %%
# **A ResNet** grows its field layer by layer.

torch.manual_seed(0)
resnet = torchvision.models.resnet18()
field = repsim.effective_receptive_field(
    resnet, images, ["layer1", "layer2", "layer3", "layer4"], n_probes=8, progress=False
)
repsim.plot.receptive_field(field)

# %%
# **A ViT** sees all pixels from its first attention on.

vit = timm.create_model("vit_tiny_patch16_224", img_size=64, patch_size=8, depth=4)
field = repsim.effective_receptive_field(vit, images, "blocks", n_probes=8, progress=False)
repsim.plot.receptive_field(field)

# %%
# The weights are random, so these are the fields of the architectures before training.

field[["sigma", "participation_area", "side"]].to_dataframe().round(1)[
    ["sigma", "participation_area", "side"]
]
