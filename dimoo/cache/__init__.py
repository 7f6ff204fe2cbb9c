"""What need not be computed again while a canvas is denoised: policies over one store of keys, values and logits."""
