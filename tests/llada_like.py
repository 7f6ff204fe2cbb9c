"""A text-only model as LLaDA is one: its special tokens, its chat template, unused rows at the end; random weights."""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from dimoo.backbone.build import build_backbone
from dimoo.backbone.config import BackboneConfig
from dimoo.backbone.init import initialise
from dimoo.core.rng import generator
from dimoo.denoise import MaskPredictor
from dimoo.presets.config import ModelConfig, TextSettings
from dimoo.tasks.model import Dimoo
from dimoo.tokenizers.template import ChatTemplate, PromptTemplate
from dimoo.tokenizers.text import TextTokenizer
from dimoo.tokenizers.vocabulary import Vocabulary

BEGIN, END, MASK = "<|startoftext|>", "<|endoftext|>", "<|mdm_mask|>"
HEADER, HEADER_END, TURN_END = "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"
UNUSED = 50
"""Rows of the tables that no id of the tokenizer uses."""
HEADERS = """
{%- for message in messages %}
    {%- if loop.first %}{{ bos_token }}{% endif %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}
    {{- message['content'] | trim }}
    {{- '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
"""
GREEDY = TextSettings()
TEMPLATE = ChatTemplate(jinja=HEADERS, begin=BEGIN, end=END, stops=(TURN_END, END))


def llada_text() -> TextTokenizer:
    """Byte-level text and six special tokens behind it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        ["system user assistant hello world what is your name"],
        trainers.BpeTrainer(vocab_size=290, initial_alphabet=alphabet, show_progress=False),
    )
    special = (BEGIN, END, MASK, HEADER, HEADER_END, TURN_END)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return TextTokenizer(tokenizer)


def llada_config(text: TextTokenizer, *, chat: ChatTemplate = TEMPLATE, sampling: TextSettings = GREEDY) -> ModelConfig:
    """Text ids as many as rows, the unused ones among them; no pad of its own."""
    end = text.id_of(END)
    rows = text.size + UNUSED
    return ModelConfig(
        name="llada-like",
        backbone=BackboneConfig(d_model=32, layers=2, heads=4, kv_heads=4, mlp_hidden=48, vocab_size=rows),
        vocabulary=Vocabulary(text_size=rows, mask=text.id_of(MASK), pad=end, end_of_text=end),
        template=PromptTemplate(systems={}),
        chat=chat,
        text=sampling,
        image_size=(16, 24),
        answer_tokens=6,
    )


def llada_like(
    *, network: MaskPredictor | None = None, chat: ChatTemplate = TEMPLATE, sampling: TextSettings = GREEDY
) -> Dimoo:
    """The model, with a network of one's own if one is given."""
    text = llada_text()
    config = llada_config(text, chat=chat, sampling=sampling)
    if network is None:
        backbone = initialise(build_backbone(config.backbone), generator(0, "llada", "backbone"))
        for parameter in backbone.parameters():
            if parameter.ndim == 2:
                parameter.data.mul_(6.0)
        network = backbone
    return Dimoo(config, backbone=network, text_tokenizer=text)
