"""
Linear probes: where does the class become readable?
====================================================

A closed-form linear classifier is fitted to each layer, with ten images of each class, on different
tokens: CLS, the mean, and each single token.
"""

import repsim
from digit_networks import trained

networks = trained()
digits = networks.digits
train = list(zip(digits.train.split(128), digits.train_labels.split(128)))
test = list(zip(digits.test.split(128), digits.test_labels.split(128)))

probed = repsim.linear_probe(
    networks.vit,
    train,
    test,
    layers="blocks",
    tokens=("cls", "mean", "each"),
    shots=10,
    prefix=1,
    name="ViT",
    progress=False,
)
repsim.plot.probe(probed)

# %%
# For each layer, the regularisation is chosen on a part of the training images.

probed.accuracy.sel(token=["cls", "mean"]).to_pandas().round(3)
