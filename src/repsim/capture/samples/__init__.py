"""Which axis of an output holds the samples: evidence of small batches, and a rule of sizes."""
