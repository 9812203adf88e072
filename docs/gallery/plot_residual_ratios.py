"""
Residual ratios: does the skip or the branch carry more?
========================================================

At every residual addition z + f(z), the ratio divides the norm of the skip by the norm of the
branch, token by token. repsim runs the model to find the additions.
"""

import repsim
from digit_networks import trained

networks = trained()
ratios = repsim.residual_ratios(networks.vit, networks.batches(), progress=False)
repsim.plot.residual_ratios(ratios)

# %%
# The CLS token behaves differently because it is a constant before the first attention. This map
# shows each token at each addition:

repsim.plot.residual_ratios(ratios, kind="map")

# %%
# **A CNN** trained on the same task; its tokens are the positions of its maps:

repsim.plot.residual_ratios(
    repsim.residual_ratios(networks.cnn, networks.batches(), progress=False)
)

# %%
# **Without a skip.** `repsim.without_residual` removes the skips of a block inside the addition
# itself. The result has the same bits as an edited block, also in training.

import torch

with torch.no_grad(), repsim.without_residual(networks.vit, "blocks.2"):
    logits = networks.vit(networks.digits.test)
float((logits.argmax(1) == networks.digits.test_labels).double().mean())
