"""Tasks: a request becomes contexts and an answer canvas, and the denoised canvas becomes a result."""
