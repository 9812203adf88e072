"""
Block influence: which blocks could be left out?
================================================

The influence of a block is 1 − cosine of its input and its output, averaged over tokens. The
angular distance says how far a span of blocks turns the residual stream.
"""

import repsim
from digit_networks import trained

networks = trained()
result = repsim.block_influence(networks.vit, networks.batches(), progress=False)
repsim.plot.block_influence(result)

# %%
# **Spans of blocks.** Each cell is the angular distance from the input of one block to that of a
# later one. The circle marks the span of each length that turns the stream least.

repsim.plot.block_influence(result, kind="map")
