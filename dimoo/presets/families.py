"""The names of the task families, by which prompt templates keep their system prompts. Free of torch."""

from __future__ import annotations

TEXT_TO_IMAGE = "text_to_image"
UNDERSTANDING = "understanding"
