"""How much memory a model needs per task and picture size, found without running it for real.

No formula that could drift from the code: the model is built on the meta device, where tensors have shapes and no
numbers, the code that samples runs on it, and the bytes that its tensors would hold are counted as they come and go.

What a device takes on top of these figures, and is not in them: the runtime of CUDA (about half a gigabyte), the
workspaces of convolutions and matrix products, what the allocator keeps without use, and the sums that fused attention
keeps (four bytes per token and head). Attention that materialises its scores, as an unfused fallback does, needs four
bytes more for every pair of tokens and head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dimoo.backbone.block import Attention
from dimoo.backbone.build import build_backbone
from dimoo.backbone.config import BackboneConfig, QuantizeKind
from dimoo.backbone.layout import PackedLayout
from dimoo.backbone.model import Backbone
from dimoo.backbone.quantized import quantized
from dimoo.core.peak import held, peak_bytes
from dimoo.denoise import BackboneDenoiser, Branch, MaskPredictor
from dimoo.diffusion.canvas import Canvas, Plan
from dimoo.diffusion.guidance import CONDITION, UNCONDITIONAL, ClassifierFree, MultiCondition
from dimoo.diffusion.progress import Progress
from dimoo.diffusion.sampler import Query
from dimoo.diffusion.turn import Region
from dimoo.presets.config import ModelConfig
from dimoo.presets.families import TEXT_TO_IMAGE, UNDERSTANDING
from dimoo.tasks.plans import image_plan, text_plan
from dimoo.tokenizers.image.build import build_network, build_quantizer
from dimoo.tokenizers.image.tokenizer import ImageTokenizer
from dimoo.tokenizers.layout import GridLayout
from dimoo.tokenizers.vocabulary import TEXT

IMAGE_TO_IMAGE = "image_to_image"
"""Any task that makes a picture from words and a picture."""
CHAT = "chat"
"""Words from words."""
PROMPT_TOKENS = 64
"""Tokens of every prompt that is reckoned with: system prompt, tags and the user's words."""

Size = tuple[int, int]
_META = torch.device("meta")


@dataclass(frozen=True, kw_only=True)
class Need:
    """What one request of a task needs, alone in its batch; all memory in bytes."""

    task: str
    size: Size | None
    """(height, width) in pixels of the picture that is made, or asked about; None where there is none."""
    tokens: int
    """Tokens of the stream: prompts, input pictures and answer of all guidance branches."""
    weights: int
    """Of the backbone and the image tokenizer."""
    activations: int
    """At the peak of a sampling step, the network's and the sampler's."""
    codec: int
    """At the peak of the image tokenizer: encoding the input picture or decoding the result."""

    @property
    def total(self) -> int:
        """weights + max(activations, codec): the tokenizer and the backbone take turns."""
        return self.weights + max(self.activations, self.codec)


def estimate(
    config: ModelConfig,
    *,
    dtype: torch.dtype,
    image: ImageTokenizer | None,
    sizes: Sequence[Size] | None = None,
    quantize: QuantizeKind | None = None,
) -> tuple[Need, ...]:
    """The memory that each task needs at each size, sampled as the model's own settings say.

    text_to_image has two branches (guidance on). image_to_image has three, without text and without image besides the
    condition, and an input picture of half the model's own height and width. understanding answers a question about one
    picture, chat one about none, in `config.answer_tokens` tokens. Prompts take `PROMPT_TOKENS`. Chat is listed where
    the model has a chat template or knows text only, which leaves nothing else.

    Args:
        config: the model.
        dtype: of the backbone's weights and activations.
        image: the image tokenizer, in the dtype that it has; it is not run, and may be without weights.
        sizes: (height, width) of the pictures; by default `usual_sizes`.
        quantize: how the weights of the blocks are kept, as in `dimoo.load`; None: in `dtype`.

    Raises:
        RequestError: a size is off the tokenizer's grid.
        ConfigError: the vocabulary has no range for the tokenizer's codes.
        BackendError: the weights cannot be quantised so.
    """
    weights = held(meta_backbone(config.backbone, dtype, quantize)) + (0 if image is None else held(image))
    # Sampling keeps nothing of a layer, so that two of them stand for all; the first alone has its input for itself.
    shallow = config.backbone.model_copy(update={"layers": min(config.backbone.layers, 2)})
    backbone = meta_backbone(shallow, dtype, quantize)

    def need(task: str, size: Size | None, step: Step, codec: int) -> Need:
        peak = step_bytes(backbone, step)
        return Need(task=task, size=size, tokens=step.tokens, weights=weights, activations=peak, codec=codec)

    needs: list[Need] = []
    if image is None or config.chat is not None:
        needs.append(need(CHAT, None, _text_step(config, PROMPT_TOKENS, given=0), 0))
    if image is None:
        return tuple(needs)
    codec, small = _on_meta(image), _scaled(config, image, 0.5, 0.5)
    for size in usual_sizes(config, image) if sizes is None else sizes:
        reading, writing, seen = _encoding(codec, size), _decoding(codec, size), _piece(config, image, size)
        needs += [
            need(TEXT_TO_IMAGE, size, _image_step(config, image, size, None), writing),
            need(IMAGE_TO_IMAGE, size, _image_step(config, image, size, small), max(_encoding(codec, small), writing)),
            need(UNDERSTANDING, size, _text_step(config, PROMPT_TOKENS + seen, given=2), reading),
        ]
    return tuple(needs)


def usual_sizes(config: ModelConfig, image: ImageTokenizer) -> tuple[Size, ...]:
    """Half the model's own height and width, its own, and a wide one (3/4 as high, 3/2 as wide), cut to the grid."""
    shares = ((0.5, 0.5), (1.0, 1.0), (0.75, 1.5))
    return tuple(dict.fromkeys(_scaled(config, image, *share) for share in shares))


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """The shape of one sampling step of one request."""

    contexts: Mapping[str, int]
    """Tokens in front of the canvas, by guidance branch."""
    canvas: int
    """Tokens of the canvas."""
    targets: int
    """How many of them are to be made; all are masked still, and the plan's order says which it wants predicted."""
    columns: tuple[int, int]
    """The ids (start, stop) that they may take."""
    forbidden: tuple[int, ...] = ()
    """Ids among them that are never drawn."""
    plan: Plan

    @property
    def tokens(self) -> int:
        """Tokens of the stream, that is of all branches."""
        return sum(self.contexts.values()) + self.canvas * len(self.contexts)


def meta_backbone(config: BackboneConfig, dtype: torch.dtype, quantize: QuantizeKind | None = None) -> Backbone:
    """The backbone on the meta device, with attention that holds what fused kernels hold."""
    with _META:
        backbone = build_backbone(config).to(dtype)
    for module in backbone.modules():
        if isinstance(module, Attention):
            module.backend = _FusedAttention()
    return backbone if quantize is None else quantized(backbone, quantize)


def step_bytes(backbone: MaskPredictor, step: Step) -> int:
    """Peak bytes of the first step of a network that is on the meta device; not the weights.

    What runs is `BackboneDenoiser`, then guidance, draw and confidence as `dimoo.diffusion.sampler` calls them. The
    commit is left out, since it holds ids alone.
    """
    empty = torch.empty(step.canvas, dtype=torch.int64, device=_META)
    canvas = Canvas(ids=empty, masked=empty.bool(), lengths=(step.canvas,), spans=(), mask_id=0)
    branches = {
        name: Branch(context=torch.empty(tokens, dtype=torch.int64, device=_META))
        for name, tokens in step.contexts.items()
    }
    masked = torch.ones(step.targets, dtype=torch.bool)
    first = Progress.of(step=0, steps=step.plan.steps, initial=masked, masked=masked)
    positions = step.plan.order.candidates(first).to(_META)
    query = Query(
        row=0,
        positions=positions,
        region=Region(first=0, last=step.canvas - 1, complete=positions.numel() == step.targets),
        columns=step.columns,
        branches=step.plan.guidance.branches,
        step=0,
        steps=step.plan.steps,
        written=0,
    )
    generator = _MetaGenerator()

    def call() -> None:
        logits = BackboneDenoiser(backbone, canvas, [branches])(canvas, [query])[0]
        guided = step.plan.guidance(logits)
        if step.forbidden:
            guided = guided.clone()
            for index in step.forbidden:
                guided[:, index - step.columns[0]] = -torch.inf
        step.plan.confidence(guided, step.plan.draw(guided, generator), generator)

    return peak_bytes(call)


class _MetaGenerator(torch.Generator):
    """Strategies draw on the generator's device: on the meta device the noise has a shape and costs no time."""

    device = _META


@dataclass(frozen=True, kw_only=True)
class _FusedAttention:
    """Attention as a fused kernel holds it: the output, a sum for each token and head, and no scores.

    Sequences of several lengths are attended apart and their outputs joined, as `SdpaAttention` does.
    """

    def attend(self, query: Tensor, key: Tensor, value: Tensor, layout: PackedLayout) -> Tensor:
        """See `AttentionBackend.attend`; the output is empty."""
        del key, value
        sums, out = query.new_empty(query.shape[:2], dtype=torch.float32), torch.empty_like(query)
        del sums
        return out if len(layout.groups) == 1 else torch.cat([out])


def _on_meta(image: ImageTokenizer) -> ImageTokenizer:
    """The same tokenizer without weights; the given one stays where it is."""
    with _META:
        quantizer = build_quantizer(image.config.quantizer)
        network = build_network(image.config.network, quantizer.dim)
    return ImageTokenizer(config=image.config, network=network, quantizer=quantizer).to(image.network.last_weight.dtype)


def _encoding(image: ImageTokenizer, size: Size) -> int:
    return peak_bytes(lambda: image.encode(torch.empty(1, 3, *size, device=_META)))


def _decoding(image: ImageTokenizer, size: Size) -> int:
    codes = torch.zeros(1, *image.grid_for(size), dtype=torch.int64)  # with numbers, since decode checks their range
    return peak_bytes(lambda: image.decode(codes))


def _image_step(config: ModelConfig, image: ImageTokenizer, size: Size, given: Size | None) -> Step:
    """A picture made from words, or from words and a picture of size `given`."""
    rows, columns = image.grid_for(size)
    plan = image_plan(config.image, grids=[(rows, columns)])
    if given is None:
        contexts = {CONDITION: PROMPT_TOKENS, UNCONDITIONAL: PROMPT_TOKENS}
        plan = replace(plan, guidance=ClassifierFree(scale=1.0))
    else:
        seen = PROMPT_TOKENS + _piece(config, image, given)
        contexts = {CONDITION: seen, "no_text": seen, "no_image": PROMPT_TOKENS}
        plan = replace(plan, guidance=MultiCondition(scales=(("no_text", 1.0), ("no_image", 1.0))))
    return Step(
        contexts=contexts,
        canvas=_piece(config, image, size) + 2,  # <answer> ... </answer>
        targets=rows * columns,
        columns=config.vocabulary.columns(image.modality),
        plan=plan,
    )


def _text_step(config: ModelConfig, context: int, given: int) -> Step:
    """An answer in words, with so many given tokens around it."""
    tokens, vocabulary = config.answer_tokens, config.vocabulary
    plan = text_plan(config.text, tokens=tokens, stops=())
    return Step(
        contexts=dict.fromkeys(plan.guidance.branches, context),
        canvas=tokens + given,
        targets=tokens,
        columns=vocabulary.columns(TEXT),
        forbidden=(vocabulary.mask,),
        plan=plan,
    )


def _piece(config: ModelConfig, image: ImageTokenizer, size: Size) -> int:
    """Tokens of a picture in a sequence: `<IMAGE> rows </IMAGE>`."""
    entry = config.vocabulary.modality(image.modality)
    layout = GridLayout(
        grid=image.grid_for(size),
        start=entry.start,
        codebook_size=entry.size,
        end_of_line=config.vocabulary.special("end_of_line"),
    )
    return layout.length + 2


def _scaled(config: ModelConfig, image: ImageTokenizer, down: float, across: float) -> Size:
    """The model's own size, its sides scaled and cut to whole codes, one at least."""
    (height, width), (high, wide) = config.image_size, image.downsampling
    return max(high, int(height * down) // high * high), max(wide, int(width * across) // wide * wide)
