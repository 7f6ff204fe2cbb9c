"""Images <-> grids of codes: networks, quantizers, the training objective, sizes."""
