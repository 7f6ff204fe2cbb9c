"""Models of random weights of any shape, and the jobs that they are timed on: cost without quality."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dimoo.backbone.build import build_backbone
from dimoo.backbone.config import BackboneConfig
from dimoo.backbone.init import initialise
from dimoo.backbone.model import Backbone
from dimoo.bench.methods import ALL, Method, Task
from dimoo.core.rng import generator
from dimoo.diffusion.guidance import CONDITION, UNCONDITIONAL
from dimoo.presets import llada_8b, lumina_dimoo_8b
from dimoo.presets.config import ImageSettings, TextSettings
from dimoo.tasks.compose import Settings
from dimoo.tasks.job import Job
from dimoo.tasks.plans import image_plan, text_plan
from dimoo.tasks.problem import Problem
from dimoo.tokenizers.document import Document, Target, join
from dimoo.tokenizers.layout import GridLayout
from dimoo.tokenizers.vocabulary import TEXT, Vocabulary

IMAGE = "image"
ROW_END, START, END, OPENING, CLOSING = 3, 5, 6, 7, 8
"""Special ids that stand in the answers."""
FIRST = 16
"""The first id of prompts: no special one."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A model and what it is asked for."""

    backbone: BackboneConfig
    codes: int
    """Image codes; the text ids are the rest of the vocabulary. 0: it knows words alone."""
    grid: tuple[int, int] = (32, 32)
    """Of the pictures, in codes."""
    prompt: int = 40
    """Tokens of the condition."""
    short: int = 20
    """Tokens of the branches without the text."""
    image_steps: int = 16
    guidance: float = 4.0
    text_tokens: int = 256
    text_steps: int = 128
    block: int = 64

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What it can be asked for."""
        return ALL if self.codes else ("text",)


SHAPES = {
    "small": Shape(
        backbone=BackboneConfig(
            d_model=384, layers=12, heads=6, kv_heads=6, mlp_hidden=1152, vocab_size=28_192, rope_theta=10_000.0
        ),
        codes=8192,
    ),
    "lumina_dimoo_8b": Shape(
        backbone=lumina_dimoo_8b.BACKBONE,
        codes=8192,
        grid=(64, 64),
        prompt=64,
        image_steps=64,
        text_tokens=1024,
        text_steps=128,
        block=256,
    ),
    "llada_8b": Shape(backbone=llada_8b.BACKBONE, codes=0, text_steps=256, block=32),
}
"""By the name that the command takes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RandomModel:
    """Weights drawn at random; what they make means nothing, what it costs does."""

    shape: Shape
    network: Backbone
    vocabulary: Vocabulary

    @classmethod
    def of(cls, shape: Shape, *, dtype: torch.dtype, device: torch.device, seed: int) -> RandomModel:
        """Draw the weights."""
        with torch.device(device):
            network = build_backbone(shape.backbone).to(dtype)
        initialise(network, generator(seed, "bench", "weights"))
        text = Vocabulary(
            text_size=shape.backbone.vocab_size - shape.codes,
            mask=0,
            pad=1,
            end_of_text=2,
            end_of_line=ROW_END,
            unconditional=4,
            answer_start=START,
            answer_end=END,
        )
        vocabulary = text
        if shape.codes:
            vocabulary = text.with_modality(IMAGE, shape.codes, opening=OPENING, closing=CLOSING)
        return cls(shape=shape, network=network.eval().requires_grad_(False), vocabulary=vocabulary)

    def settings(self, method: Method) -> Settings:
        """How a method samples here."""
        shape = self.shape
        return Settings(
            image=method.image(ImageSettings(steps=shape.image_steps, guidance=shape.guidance)),
            text=method.text(TextSettings(steps_per_token=shape.text_steps / shape.text_tokens, block=shape.block)),
        )

    def job(self, task: Task, settings: Settings, seed: int) -> Job[Tensor]:
        """A job of a task; its result is the answer's ids."""
        shape, draws = self.shape, generator(seed, "bench", "prompt")
        words = torch.randint(FIRST, self.vocabulary.text_size, (shape.prompt,), generator=draws)
        short = words[: shape.short]
        if task == "text":
            answer = self._words()
            problem = Problem(branches={CONDITION: Document.given(words)}, answer=answer)
            plan = text_plan(settings.text, tokens=shape.text_tokens, stops=())
            plans = {TEXT: plan}
        else:
            picture = torch.randint(*self.vocabulary.columns(IMAGE), shape.grid, generator=draws)
            seen = self._picture(picture)
            branches = {CONDITION: Document.given(words), UNCONDITIONAL: Document.given(short)}
            if task == "edit":
                branches = {
                    CONDITION: join([Document.given(words), seen]),
                    "no_text": join([Document.given(short), seen]),
                    "no_image": Document.given(words),
                }
            problem = Problem(branches=branches, answer=self._picture(None))
            plans = {IMAGE: image_plan(settings.image, branches, (shape.grid,))}
        cache = settings.cache(pictures=task != "text", words=task == "text")
        return Job(problem=problem, plans=plans, seed=seed, read=lambda ids: ids, cache=cache)

    def _picture(self, ids: Tensor | None) -> Document:
        """A given picture of ids [h, w], or one that is to be made, with its row ends."""
        start, stop = self.vocabulary.columns(IMAGE)
        layout = GridLayout(grid=self.shape.grid, start=start, codebook_size=stop - start, end_of_line=ROW_END)
        made = ids is None
        codes = torch.zeros(self.shape.grid, dtype=torch.int64) if ids is None else ids - start
        sequence, is_code = layout.to_sequence(codes), layout.is_code()
        if not made:
            return Document.given(torch.cat([torch.tensor([OPENING]), sequence, torch.tensor([CLOSING])]))
        sequence = torch.where(is_code, self.vocabulary.mask, sequence)
        inside = Document(
            ids=sequence,
            group=torch.where(is_code, 0, -1),
            targets=(Target(modality=IMAGE, kind=IMAGE, columns=(start, stop)),),
        )
        opened, closed = [START, OPENING], [CLOSING, END]
        return join([Document.given(opened), inside, Document.given(closed)])

    def _words(self) -> Document:
        target = Target(modality=TEXT, kind=TEXT, columns=self.vocabulary.columns(TEXT))
        masks = torch.full((self.shape.text_tokens,), self.vocabulary.mask)
        ends = Document.given([START]), Document.given([END])
        return join([ends[0], Document.target(masks, target), ends[1]])
