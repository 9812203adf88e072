"""
Above chance: which entries of a map mean something?
====================================================

With few images, chance alone explains some entries of a map. Each entry has an exact z-score under
permutation of the samples. Entries below three standard deviations are grey.
"""

# sphinx_gallery_thumbnail_number = 2

import repsim
from digit_networks import trained

networks = trained()
few = networks.batches(size=24)[:2]

# %%
# **Different images on both sides.** The CNN sees one image and the ViT another, so there is
# nothing to find. Unbiased CKA still scatters around zero, and no entry reaches three.

shifted = repsim.compare(
    networks.cnn,
    networks.vit,
    data=few,
    prepare_y=lambda images: images.roll(1, dims=0),
    z_scores=True,
    names=("CNN", "ViT"),
    progress=False,
)
repsim.plot.heatmap(shifted, above_chance=3.0, title="Each image with another", width=7)

# %%
# **The same image on both sides.** 48 images are enough to see that both networks have something in
# common in nearly all their layers.

same = repsim.compare(
    networks.cnn, networks.vit, data=few, z_scores=True, names=("CNN", "ViT"), progress=False
)
repsim.plot.heatmap(same, above_chance=3.0, title="The same images", width=7)

# %%
# A map has many entries, and the largest of many z-scores is large by chance. `repsim.max_t`
# permutes the samples once for all layers and returns p-values that hold for the whole map.

import torch

with torch.no_grad():
    with repsim.Recorder(networks.cnn, "stage?.?", transform="flatten") as cnn:
        networks.cnn(torch.cat(few))
    with repsim.Recorder(networks.vit, "blocks", transform="flatten") as vit:
        networks.vit(torch.cat(few))

tested = repsim.max_t(dict(cnn), dict(vit))
repsim.plot.heatmap(tested, above_chance=tested.p_adjusted <= 0.05, title="p ≤ 0.05, whole map")
