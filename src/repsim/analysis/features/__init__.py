"""The features of models on all samples, kept in memory or in a store, for any measure."""
