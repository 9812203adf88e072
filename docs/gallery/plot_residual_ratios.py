"""
Residual ratios: does the skip or the branch carry more?
========================================================

At every residual addition z + f(z), the norm of the skip over the norm of the branch, token by
token. Where the additions are is found by running the model.
"""

import repsim
from digit_networks import trained

networks = trained()
ratios = repsim.residual_ratios(networks.vit, networks.batches(), progress=False)
repsim.plot.residual_ratios(ratios)

# %%
# The CLS token goes apart: it is a constant until the first attention has filled it. Each token at
# each addition:

repsim.plot.residual_ratios(ratios, kind="map")

# %%
# **A CNN** of the same task, whose tokens are the positions of its maps:

repsim.plot.residual_ratios(
    repsim.residual_ratios(networks.cnn, networks.batches(), progress=False)
)

# %%
# **Without a skip.** `repsim.without_residual` removes the skips of a block inside the addition
# itself, bit for bit what editing the block would give, also while the model is trained.

import torch

with torch.no_grad(), repsim.without_residual(networks.vit, "blocks.2"):
    logits = networks.vit(networks.digits.test)
float((logits.argmax(1) == networks.digits.test_labels).double().mean())
