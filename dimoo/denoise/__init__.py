"""The denoising step: canvas and branches packed into one stream, logits at masked positions per branch."""

from dimoo.denoise.caching import Cache, NoCache, RoutedDenoiser
from dimoo.denoise.denoiser import BackboneDenoiser
from dimoo.denoise.pack import Branch, Branches
from dimoo.denoise.predictor import MaskPredictor

__all__ = ["BackboneDenoiser", "Branch", "Branches", "Cache", "MaskPredictor", "NoCache", "RoutedDenoiser"]
