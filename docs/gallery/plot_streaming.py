"""
Streaming: the same number from batches
=======================================

Minibatch CKA estimates the value of the whole data set from batches. Its memory does not grow with
their number. The average of the CKAs of batches is a different quantity.
"""

import warnings

import numpy as np
import matplotlib.pyplot as plt

import repsim

warnings.simplefilter("ignore", repsim.ChanceWarning)  # of biased CKA, which this page shows
rng = np.random.default_rng(0)
cause = rng.standard_normal((1024, 8))
x = cause @ rng.standard_normal((8, 100)) + 4 * rng.standard_normal((1024, 100))
y = cause @ rng.standard_normal((8, 100)) + 4 * rng.standard_normal((1024, 100))
whole = float(repsim.cka(x, y, estimator="unbiased"))

# %%
# This plot shows one pass over batches of 32: the estimate with its standard error after each
# batch, and, for comparison, the average of biased CKA over batches.

accumulator = repsim.MinibatchCKA()
streamed, errors, averaged, values = [], [], [], []
for rows in np.arange(1024).reshape(-1, 32):
    accumulator.update({"x": x[rows]}, {"y": y[rows]})
    values.append(float(repsim.cka(x[rows], y[rows])))
    if accumulator.n_batches >= 4:
        streamed.append(accumulator.compute().item())
        errors.append(accumulator.standard_error().item())
        averaged.append(np.mean(values))

seen = 32 * np.arange(4, 33)
streamed, errors = np.array(streamed), np.array(errors)
ax = plt.figure(figsize=(6, 3.4), layout="constrained").add_subplot()
ax.fill_between(seen, streamed - errors, streamed + errors, color="#8a2b68", alpha=0.2, lw=0)
ax.plot(seen, streamed, color="#8a2b68", label="minibatch CKA ± standard error")
ax.plot(seen, averaged, color="0.5", label="mean of biased CKA per batch")
ax.axhline(whole, color="k", linestyle="--", linewidth=1, label="all 1024 samples at once")
ax.set(xlabel="samples seen", ylabel="CKA", ylim=(0.3, 1), title="Batches of 32, 100 features")
ax.legend(frameon=False)
ax

# %%
# For the linear kernel there is also an exact way, which sums the covariances of features.

exact = repsim.StreamingLinearCKA()
for rows in np.arange(1024).reshape(-1, 32):
    exact.update({"x": x[rows]}, {"y": y[rows]})
exact.compute().item() - whole

# %%
# Measures that follow from covariances are exact too, all from one pass.

several = repsim.StreamingCovariance()
for rows in np.arange(1024).reshape(-1, 32):
    several.update({"x": x[rows]}, {"y": y[rows]})
{name: round(several.compute(name).item(), 6) for name in ("cca", "nbs", "linear_regression_r2")}
