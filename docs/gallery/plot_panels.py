"""
Several maps in one figure
==========================

``plot.panels`` draws maps side by side with one colour scale and one colour bar. The figure has the
width of a page or of a column, and its text has 7 to 9 points.
"""

import repsim
from digit_networks import trained

networks = trained()  # two small networks, trained on digits
batches = networks.batches()
cnn = repsim.compare(networks.cnn, data=batches, names=("CNN", "CNN"), progress=False)
vit = repsim.compare(networks.vit, data=batches, names=("ViT", "ViT"), progress=False)
both = repsim.compare(
    networks.cnn, networks.vit, data=batches, names=("CNN", "ViT"), progress=False
)

# %%
# **A page of 7 inches.** Layers are numbered, as in many papers.

repsim.plot.panels([cnn, vit, both], labels="index", titles=["CNN", "ViT", "CNN with ViT"])

# %%
# **A column of 3.3 inches.** A single map, with names. ``ax.figure.savefig("map.pdf")`` keeps the
# width if it is called without ``bbox_inches="tight"``, and text stays text in the PDF.

repsim.plot.heatmap(both, width=3.3)
