"""demo, evaluate: how good a model is."""
