"""What a model is, as data: the config of a checkpoint, and the configs of published models. Free of torch."""
