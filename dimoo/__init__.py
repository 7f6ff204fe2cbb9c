"""dimoo: multimodal masked discrete diffusion. See README.md for a map."""
