"""LLaDA-8B Base and Instruct (arXiv 2502.09992) as data: the text model that Lumina-DiMOO grew from. Free of torch.

Shape, ids and sampling are those of the authors' checkpoints (`GSAI-ML/LLaDA-8B-Base` and `-Instruct`) and of their
chat script. The words around a conversation are not here: they are the chat template of the checkpoint's own
`tokenizer_config.json`.
"""

from __future__ import annotations

from dimoo.backbone.config import BackboneConfig
from dimoo.diffusion.config import GreedyConfig, ProbabilityConfig
from dimoo.presets.config import TextSettings

BACKBONE = BackboneConfig(
    d_model=4096,
    layers=32,
    heads=32,
    kv_heads=32,
    mlp_hidden=12288,
    vocab_size=126_464,
    rope_theta=500_000.0,
    norm_eps=1e-5,
)
"""From the checkpoints' config.json; 8,015,581,184 parameters."""

USED_TOKENS = 126_349
"""The tokenizer's ids are 0 .. 126,348. The 115 rows behind them are untrained: whoever grows the model takes them over
and draws them anew, as Lumina-DiMOO does, whose first tag stands at 126,349."""

TOKENS = {
    "mask": ("<|mdm_mask|>", 126_336),
    "end_of_text": ("<|endoftext|>", 126_081),
    "end_of_turn": ("<|eot_id|>", 126_348),
}
"""Special tokens: (spelling, id). The mask is what sampling replaces; the end of a text also fills what an answer
leaves of its planned length; the end of a turn stands in conversations, so Base was not trained on it."""

STOPS = ("<|eot_id|>", "<|endoftext|>")
"""Tokens that end an answer."""

ANSWER_TOKENS = 128
"""Tokens planned for an answer."""


def text_settings() -> TextSettings:
    """As many steps as tokens, in blocks of 32: each step commits the most probable greedy token.

    Probabilities are in float64, as the authors' are: near 1, where float32 would see ties, the order still counts.
    """
    return TextSettings(
        steps_per_token=1.0,
        block=32,
        draw=GreedyConfig(),
        confidence=ProbabilityConfig(dtype="float64"),
    )
