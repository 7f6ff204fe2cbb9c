"""The built-in world: emoji on plain backgrounds, with captions and questions that are true by construction.

No download, no torch: `WorldSource(WorldConfig()).example(0)` is a picture with a caption and questions.
"""

from dimoo.data.world.config import WorldConfig
from dimoo.data.world.language import caption, describe, plain_caption
from dimoo.data.world.questions import KINDS, QA, questions
from dimoo.data.world.render import render
from dimoo.data.world.sample import sample_scene
from dimoo.data.world.scene import Background, Entity, Scene, region, relation
from dimoo.data.world.source import WorldSource
from dimoo.data.world.suite import PROMPT_KINDS, prompts, qa_suite

__all__ = [
    "KINDS",
    "PROMPT_KINDS",
    "QA",
    "Background",
    "Entity",
    "Scene",
    "WorldConfig",
    "WorldSource",
    "caption",
    "describe",
    "plain_caption",
    "prompts",
    "qa_suite",
    "questions",
    "region",
    "relation",
    "render",
    "sample_scene",
]
