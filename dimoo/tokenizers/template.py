"""What stands around a user's words, as a checkpoint stores it. Free of torch."""

from __future__ import annotations

from pydantic import Field

from dimoo.core.config import StrictConfig

PLAIN = "{{ messages | map(attribute='content') | join('\n') }}"
"""The chat template of a model that was taught none, as LLaDA-8B-Base: the messages as they are, one a line."""


class PromptTemplate(StrictConfig):
    """One system prompt per task family, and the limits that training used."""

    systems: dict[str, str]
    """System prompt by task family, as {"text_to_image": "Generate an image according to the prompt."}."""
    max_prompt_tokens: int = Field(default=1024, ge=8)


class ChatTemplate(StrictConfig):
    """How a language model was taught to read a conversation, and where its answers end."""

    jinja: str
    """The checkpoint's own template, `chat_template` of its tokenizer_config.json; `PLAIN` where it has none."""
    begin: str = ""
    """The token that begins a text: `bos_token` inside the template."""
    end: str = ""
    """The token that ends a text: `eos_token` inside the template."""
    stops: tuple[str, ...]
    """Tokens that end an answer, as ("<|eot_id|>", "<|endoftext|>"); with none all planned tokens are read."""
    max_tokens: int = Field(default=4096, ge=8)
    """Conversation and answer together, at most."""
