"""The words around a request, as a checkpoint stores them. Free of torch."""

from __future__ import annotations

from pydantic import Field

from dimoo.core.config import StrictConfig


class PromptTemplate(StrictConfig):
    """One system prompt per task family, and the limits that training used."""

    systems: dict[str, str]
    """System prompt by task family, as {"text_to_image": "Generate an image according to the prompt."}."""
    max_prompt_tokens: int = Field(default=1024, ge=8)
