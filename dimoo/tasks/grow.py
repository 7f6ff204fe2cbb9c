"""A language model -> a multimodal one: room for the codes of pictures, as Lumina-DiMOO was made from LLaDA."""

from __future__ import annotations

from dimoo.backbone import init
from dimoo.backbone.model import Backbone
from dimoo.core.errors import CheckpointError, ConfigError
from dimoo.core.rng import generator
from dimoo.tasks.model import Dimoo
from dimoo.tokenizers.base import Tokenizer
from dimoo.tokenizers.template import PromptTemplate
from dimoo.tokenizers.text import PROMPT_TAGS, SPECIAL_TOKENS, TextTokenizer
from dimoo.tokenizers.vocabulary import MULTIMODAL, Vocabulary
from dimoo.weights.layout import with_fingerprints


def grow(model: Dimoo, image_tokenizer: Tokenizer, *, name: str, template: PromptTemplate, seed: int = 0) -> Dimoo:
    """A multimodal model with the weights of a text-only one, ready to be trained (SPEC sections 1 and 3).

    ids:  [ text, as before | tags and special tokens that the tokenizer lacked | codes ]

    The ids that the text tokenizer uses keep their rows of the embedding and the head. All others, a published model's
    unused rows at the end among them, are drawn from the seed: w ~ N(mean, var) of the kept rows, per dimension. So
    pictures are noise until the model is trained, while the logits of the kept ids are as before. The given model is
    left as it is and shares no weights with the new one: there must be memory for both.

    In LLaDA-8B, whose tokenizer ends at 126,348, `<IMAGE>`, `</IMAGE>` and `<uncondition>` get the ids that they have
    in Lumina-DiMOO: 126,349 to 126,351.

    Args:
        model: the text-only model.
        image_tokenizer: what turns pictures into codes.
        name: of the new model.
        template: the system prompts of its tasks.
        seed: names the draws of the new rows.

    Raises:
        ConfigError: the model has modalities already.
        CheckpointError: its backbone is no `Backbone`, or its text tokenizer has gaps or lacks special ids that the
            vocabulary names.
    """
    old, text = model.config.vocabulary, model.prompts.text
    if old.modalities:
        known = ", ".join(entry.name for entry in old.modalities)
        raise ConfigError(f"the model {model.config.name!r} knows {known} already; grow a text-only one")
    if not isinstance(model.backbone, Backbone):
        raise CheckpointError(f"do not know how to grow a backbone of type {type(model.backbone).__name__}")
    grown, vocabulary = multimodal(old, text, image_tokenizer)
    config = model.config.model_copy(
        update={
            "name": name,
            "backbone": model.config.backbone.model_copy(update={"vocab_size": vocabulary.size}),
            "vocabulary": vocabulary,
            "template": template,
        }
    )
    return Dimoo(
        with_fingerprints(config, grown, image_tokenizer),
        backbone=init.grow(model.backbone, vocabulary.size, generator(seed, "grow"), kept=text.size),
        text_tokenizer=grown,
        image_tokenizer=image_tokenizer,
    )


def multimodal(
    vocabulary: Vocabulary, text: TextTokenizer, image_tokenizer: Tokenizer
) -> tuple[TextTokenizer, Vocabulary]:
    """The text tokenizer and the ids of a text-only model with the tags, special tokens and codes of pictures.

    Old ids stay; added tokens follow the last id of the tokenizer, and the codes follow them.

    Raises:
        CheckpointError: the text tokenizer has gaps, or lacks special ids that the vocabulary names.
    """
    if max(vocabulary.specials.values()) >= text.size:
        raise CheckpointError(
            f"the vocabulary has special ids {vocabulary.specials}, but the text tokenizer's end at {text.size - 1};"
            " take the tokenizer that the vocabulary was made for"
        )
    opening, closing = _tags(image_tokenizer.modality)
    grown = text.with_tokens(
        [opening, closing, SPECIAL_TOKENS["unconditional"], *PROMPT_TAGS, *(SPECIAL_TOKENS[key] for key in MULTIMODAL)]
    )
    added = {name: grown.id_of(SPECIAL_TOKENS[name]) for name in MULTIMODAL}
    only_text = vocabulary.model_copy(update={**added, "text_size": grown.size})
    size = image_tokenizer.codebook_size * image_tokenizer.codebooks
    return grown, only_text.with_modality(
        image_tokenizer.modality, size, opening=grown.id_of(opening), closing=grown.id_of(closing)
    )


def _tags(modality: str) -> tuple[str, str]:
    """What opens and closes a piece of a modality, as `<IMAGE>` and `</IMAGE>`."""
    return f"<{modality.upper()}>", f"</{modality.upper()}>"
