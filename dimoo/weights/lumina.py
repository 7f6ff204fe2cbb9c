"""The released layout of LLaDA and Lumina-DiMOO (arXiv 2502.09992, 2510.06308), as on the Hugging Face hub.

config.json                   the backbone's shape in LLaDA's keys
model-0000i-of-0000n.safetensors, model.safetensors.index.json
tokenizer.json                text tokenizer with the special tokens
tokenizer_config.json         LLaDA's chat template
vqvae/                        the image tokenizer, a diffusers `VQModel`; absent in LLaDA, which knows text only

The released files do not say how the model is prompted and sampled, nor which id is what: the former is the preset
`dimoo.presets.lumina_dimoo_8b`, the latter is read off the tokenizer. Folders that we write say it all in one more key
of config.json, "dimoo", which other readers pass over.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dimoo.backbone.config import BackboneConfig
from dimoo.backbone.model import Backbone
from dimoo.core.config import parse
from dimoo.core.errors import CheckpointError, ConfigError
from dimoo.core.files import read_object
from dimoo.presets import llada_8b, lumina_dimoo_8b
from dimoo.presets.config import ModelConfig
from dimoo.tokenizers.image.files import load_image_tokenizer, save_image_tokenizer
from dimoo.tokenizers.image.tokenizer import ImageTokenizer
from dimoo.tokenizers.template import PLAIN, ChatTemplate, PromptTemplate
from dimoo.tokenizers.text import TextTokenizer
from dimoo.tokenizers.vocabulary import Vocabulary
from dimoo.weights.diffusers_vq import is_diffusers_vq, read_diffusers_vq, write_diffusers_vq
from dimoo.weights.hub import repository
from dimoo.weights.layout import CONFIG, TEXT, Parts, fits_rows, with_fingerprints
from dimoo.weights.llada import config_from_llada, config_to_llada, llada_rules
from dimoo.weights.ours import IMAGE
from dimoo.weights.rules import Rename

VQ = "vqvae"
SECTION = "dimoo"
TOKENIZER_CONFIG, CHAT = "tokenizer_config.json", "chat_template.jinja"
CARRIED = (TOKENIZER_CONFIG, CHAT, "special_tokens_map.json", "generation_config.json")
"""Files about the text tokenizer, for other readers; a checkpoint that is written again in this layout keeps them."""
LONGEST = 4096
"""`max_sequence_length` where nothing else is known, as in LLaDA."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LuminaLayout:
    """The layout of the released models; see the module's head."""

    name: str = "lumina"

    def fits(self, settings: Mapping[str, Any]) -> bool:
        """See `Layout`."""
        return "format" not in settings and not {"d_model", "n_layers", "mlp_hidden_size"}.isdisjoint(settings)

    def backbone(self, settings: Mapping[str, Any]) -> BackboneConfig:
        """See `Layout`."""
        return config_from_llada(settings)

    def read(self, folder: Path, settings: Mapping[str, Any]) -> Parts:
        """See `Layout`."""
        backbone, text, image = self.backbone(settings), TextTokenizer.load(folder / TEXT), _read_image(folder)
        section = settings.get(SECTION)
        if section is not None and not isinstance(section, dict):
            raise CheckpointError(f"its config.json has {section!r:.60} as {SECTION!r}, which must be an object")
        if section is not None:
            config = _parse({"backbone": backbone.model_dump(mode="json"), **section})
        else:
            name = repository(folder) or folder.resolve().name
            if image is None:
                config = _text_only(folder, settings, name, backbone, text)
            else:
                config = _multimodal(name, backbone, text, image)
            config = with_fingerprints(config, text, image)
        return Parts(config=config, text=text, image=image)

    def write(self, parts: Parts, folder: Path, like: Path | None = None) -> None:
        """See `Layout`. An image tokenizer that is no VQ-GAN goes to our `image_tokenizer/` in place of `vqvae/`."""
        config, image = parts.config, parts.image
        if image is not None and is_diffusers_vq(image):
            write_diffusers_vq(image, folder / VQ)
            # Their format has no place for how a codebook is trained further.
            config = with_fingerprints(config, parts.text, read_diffusers_vq(folder / VQ))
        elif image is not None:
            _log.warning(
                "the image tokenizer is no diffusers VQModel: it is written to %s/, which only dimoo can read", IMAGE
            )
            save_image_tokenizer(image, folder / IMAGE)
        vocabulary = config.vocabulary
        settings = {
            "architectures": ["LLaDAModelLM" if image is None else "LLaDAForMultiModalGeneration"],
            "model_type": "llada",
            "max_sequence_length": LONGEST if config.chat is None else config.chat.max_tokens,
            **_unread(like),
            **config_to_llada(config.backbone),
            "mask_token_id": vocabulary.mask,
            "eos_token_id": vocabulary.end_of_text,
            "pad_token_id": vocabulary.pad,
            SECTION: config.model_dump(mode="json", exclude={"backbone", "format"}),
        }
        (folder / CONFIG).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        parts.text.save(folder / TEXT)
        about = json.dumps(_tokenizer_config(config, parts.text), indent=2) + "\n"
        (folder / TOKENIZER_CONFIG).write_text(about, encoding="utf-8")
        if like is not None:
            for file in CARRIED:
                if (like / file).is_file():
                    shutil.copyfile(like / file, folder / file)

    def rules(self, model: Backbone) -> Sequence[Rename]:
        """See `Layout`."""
        return llada_rules(len(model.blocks))


def _parse(values: Mapping[str, Any]) -> ModelConfig:
    try:
        return parse(ModelConfig, values)
    except ConfigError as error:
        raise CheckpointError(f"its config.json is not valid: {error}") from error


def _read_image(folder: Path) -> ImageTokenizer | None:
    if (folder / VQ).is_dir():
        return read_diffusers_vq(folder / VQ)
    if (folder / IMAGE).is_dir():
        return load_image_tokenizer(folder / IMAGE)
    return None


def _multimodal(name: str, backbone: BackboneConfig, text: TextTokenizer, image: ImageTokenizer) -> ModelConfig:
    """What the preset says, at this folder's size and ids."""
    preset = lumina_dimoo_8b.lumina_dimoo_8b()
    ids, released = _special_ids(text)
    codes, rows = image.codebook_size * image.codebooks, backbone.vocab_size
    start = preset.vocabulary.text_size if released else text.size
    unused = rows - start - codes
    # Only of the released ids and codes it is known where they end: elsewhere spare rows may mean a wrong tokenizer.
    known = released and codes == preset.vocabulary.modality(image.modality).size
    if not (fits_rows(start + codes, rows) if known else unused == 0):
        raise CheckpointError(
            f"the embedding has {rows} rows, but {start} text ids and the {codes} codes of the image tokenizer make"
            f" {start + codes}; the tokenizers are not those of these weights, or vocab_size is wrong"
        )
    if unused:
        _log.info("the last %d of %d rows have no id; they are left alone", unused, rows)
    opening, closing = ids.pop("image_start"), ids.pop("image_end")
    try:
        vocabulary = parse(Vocabulary, {"text_size": start, **ids}).with_modality(
            image.modality, codes, opening=opening, closing=closing
        )
    except ConfigError as error:
        raise CheckpointError(f"the special tokens do not fit the vocabulary: {error}") from error
    return preset.model_copy(update={"name": name, "backbone": backbone, "vocabulary": vocabulary})


def _special_ids(text: TextTokenizer) -> tuple[dict[str, int], bool]:
    """The ids of the special tokens by the vocabulary's names, and whether they are the released ones.

    Two released tokens have spellings that we do not know: they are taken by their ids, where the others are at theirs.
    """
    found: dict[str, int] = {}
    for name, (spellings, _) in lumina_dimoo_8b.TOKENS.items():
        hits = [spelling for spelling in spellings if text.has(spelling)]
        if hits:
            found[name] = text.id_of(hits[0])
    released = all(found[name] == lumina_dimoo_8b.TOKENS[name][1] for name in found)
    missing = {name: entry for name, entry in lumina_dimoo_8b.TOKENS.items() if name not in found}
    unknown = [name for name in missing if name not in lumina_dimoo_8b.UNSPELLED or not released]
    if unknown or not found:
        wanted = "; ".join(f"{name}: {' or '.join(map(repr, missing[name][0]))}" for name in unknown)
        raise CheckpointError(f"the text tokenizer lacks special tokens: {wanted}; add them, or take the released one")
    return {**{name: index for name, (_, index) in missing.items()}, **found}, released


def _text_only(
    folder: Path, settings: Mapping[str, Any], name: str, backbone: BackboneConfig, text: TextTokenizer
) -> ModelConfig:
    """LLaDA: text alone, with the chat template of its own tokenizer_config.json."""
    (opening, *_), _ = lumina_dimoo_8b.TOKENS["image_start"]
    if text.has(opening):
        raise CheckpointError(
            f"{folder} has a tokenizer with image tokens but no {VQ}/ folder; copy the release's {VQ} folder there"
        )
    mask, end = (_one_of(text, lumina_dimoo_8b.TOKENS[token][0]) for token in ("mask", "end_of_text"))
    try:
        vocabulary = parse(Vocabulary, {"text_size": backbone.vocab_size, "mask": mask, "pad": end, "end_of_text": end})
    except ConfigError as error:
        raise CheckpointError(f"the special tokens do not fit the vocabulary: {error}") from error
    return ModelConfig(
        name=name,
        backbone=backbone,
        vocabulary=vocabulary,
        template=PromptTemplate(systems={}),
        chat=_chat_from_hf(folder, text, settings.get("max_sequence_length") or LONGEST),
        text=llada_8b.text_settings(),
        answer_tokens=llada_8b.ANSWER_TOKENS,
    )


def _one_of(text: TextTokenizer, spellings: Sequence[str]) -> int:
    for spelling in spellings:
        if text.has(spelling):
            return text.id_of(spelling)
    raise CheckpointError(f"the text tokenizer lacks {' or '.join(map(repr, spellings))}; take the released one")


def _chat_from_hf(folder: Path, text: TextTokenizer, longest: Any) -> ChatTemplate:
    """The template of chat_template.jinja or tokenizer_config.json; without one texts are taken as they are."""
    path, own, values = folder / TOKENIZER_CONFIG, folder / CHAT, dict[str, Any]()
    try:
        if path.is_file():
            values = read_object(path)
        jinja = own.read_text(encoding="utf-8") if own.is_file() else values.get("chat_template")
        if isinstance(jinja, list):  # several by name
            jinja = {entry["name"]: entry["template"] for entry in jinja}["default"]
        begin, end = (_spelling(values.get(key)) for key in ("bos_token", "eos_token"))
    except (CheckpointError, OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"cannot read {path} or {own.name}: {type(error).__name__} {error}") from error
    # A base model knows no turns: only the end of a text ends its answers.
    ends = (end, *lumina_dimoo_8b.TOKENS["end_of_text"][0])
    known = dict.fromkeys(ends if jinja is None else (*llada_8b.STOPS, *ends))
    stops = tuple(token for token in known if token and text.has(token))
    template = {"jinja": PLAIN if jinja is None else jinja, "begin": begin, "end": end, "stops": stops}
    try:
        return parse(ChatTemplate, {**template, "max_tokens": longest})
    except ConfigError as error:
        raise CheckpointError(f"the chat template of {folder} is not valid: {error}") from error


def _spelling(token: Any) -> str:
    """A special token in tokenizer_config.json: a string, an object with its "content", or null."""
    return str(token["content"]) if isinstance(token, dict) else str(token or "")


def _tokenizer_config(config: ModelConfig, text: TextTokenizer) -> dict[str, Any]:
    vocabulary, chat = config.vocabulary, config.chat
    ids = {"eos_token": vocabulary.end_of_text, "pad_token": vocabulary.pad, "mask_token": vocabulary.mask}
    about: dict[str, Any] = {name: text.token(index) for name, index in ids.items()}
    if chat is not None:
        spelled = {"bos_token": chat.begin, "eos_token": chat.end}
        about |= {"chat_template": chat.jinja, **{name: token for name, token in spelled.items() if token}}
    return {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **about}


def _unread(like: Path | None) -> dict[str, Any]:
    """A config.json without what we say ourselves, and without the precision, which may be another one now."""
    if like is None:
        return {}
    settings = read_object(like / CONFIG)
    return {key: value for key, value in settings.items() if key not in (SECTION, "torch_dtype", "dtype")}
