"""What a recipe says, as strict configs free of torch and lightning."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from dimoo.backbone.config import BackboneConfig, LoRAConfig, Recompute
from dimoo.core.config import StrictConfig
from dimoo.data.config import MixtureConfig, SourceConfig
from dimoo.diffusion.config import CorruptionConfig, LossWeightConfig, ScheduleConfig, TimesConfig
from dimoo.presets.config import ImageSettings
from dimoo.presets.tasks import STANDARD, TaskText
from dimoo.tokenizers.image.config import ImageTokenizerConfig, ObjectiveConfig
from dimoo.tokenizers.template import PromptTemplate

OF_WARM_START = "warm_start"
Beta = Annotated[float, Field(ge=0, lt=1)]


class OptimizerConfig(StrictConfig):
    """AdamW with warm-up, a constant rate, and a linear decay at the end (warm-up, stable, decay)."""

    lr: float = Field(gt=0)
    betas: tuple[Beta, Beta] = (0.9, 0.95)
    weight_decay: float = Field(default=0.1, ge=0)
    clip: float = Field(default=1.0, gt=0)
    """Largest gradient norm."""
    warmup_steps: int = Field(default=100, ge=0)
    decay_share: float = Field(default=0.2, ge=0, le=1)
    """Share of all steps, at the end, over which the rate falls to a tenth."""
    spike: float | None = Field(default=None, gt=1)
    """Leave out a step whose gradient norm is above this many times the median of the last 100; more than 20 in a row
    end the run. None: take every step."""


class RunConfig(StrictConfig):
    """Length, bookkeeping and precision of a run."""

    name: str = Field(pattern=r"^[^/\\]*[^/\\.][^/\\]*$")
    """Folder of the run inside `folder`: a name, no path."""
    folder: str = "runs"
    seed: int = Field(default=0, ge=0)
    steps: int = Field(gt=0)
    """Optimiser steps in all."""
    batch_size: int = Field(gt=0)
    """Examples per optimiser step."""
    workers: int = Field(default=0, ge=0)
    """Processes beside each that trains, which make what the next steps learn from while one is computed; 0: it is made
    between the steps. An image tokenizer works on the CPU there. Shards that `dimoo encode` made need none at all."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """bf16 = autocast with fp32 master weights; auto takes it where the hardware multiplies bf16 fast."""
    log_every: int = Field(default=20, ge=1)
    """Steps between log lines."""
    save_every: int = Field(default=250, ge=1)
    """Steps between checkpoints."""
    sample_every: int = Field(default=500, ge=1)
    """Steps between pictures, and for a tokenizer their PSNR."""
    validate_every: int | None = Field(default=None, ge=1)
    """Steps between measurements on held-out examples: the likelihood bound, for a tokenizer the PSNR. None: never."""
    validate_examples: int = Field(default=128, ge=1)
    """How many examples are held against it, or all where fewer are held out."""
    peak_tflops: float | None = Field(default=None, gt=0)
    """Dense operations that one device can do in a second, in units of 10^12, of which MFU is a share. None: as
    Lightning knows the device; where it does not, no MFU is logged."""
    devices: int = Field(default=1, ge=1)
    """Processes on each machine, each with a device of its own ..."""
    nodes: int = Field(default=1, ge=1)
    """... and machines. A step's examples are dealt to them all; `batch_size` stays the number of all together."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """What several processes hold: a copy of the model each, or a part of it each (FSDP2)."""
    checkpoints: Literal["whole", "parts"] = "whole"
    """One file, which any number of processes goes on from; or, with fsdp, a folder to which each writes its part."""

    @model_validator(mode="after")
    def _has_parts(self) -> Self:
        if self.checkpoints == "parts" and (self.parallel != "fsdp" or self.devices * self.nodes == 1):
            raise ValueError("run.checkpoints parts needs run.parallel fsdp and several processes; set it to whole")
        return self


class _Recipe(StrictConfig):
    run: RunConfig
    optimizer: OptimizerConfig
    source: SourceConfig

    @model_validator(mode="after")
    def _validates_on_something(self) -> Self:
        if self.run.validate_every is not None and self.source.kind != "world" and not self.source.held_out:
            raise ValueError(
                f"run.validate_every {self.run.validate_every} needs examples that are held out; set source.held_out"
                " to their number, or run.validate_every to null"
            )
        return self


class TokenizerRecipe(_Recipe):
    """Train an image tokenizer, from scratch or with more codes than one that there is."""

    kind: Literal["tokenizer"] = "tokenizer"
    tokenizer: ImageTokenizerConfig
    objective: ObjectiveConfig
    discriminator_lr: float = Field(default=1e-4, gt=0)
    fit_pictures: int = Field(default=1024, ge=1)
    """Examples to whose pictures a learned codebook is fitted before the first step."""
    extends: str | None = None
    """A tokenizer folder, or "mini": its encoder and codes are kept and fixed, codes up to `tokenizer`'s size are added
    and the decoder is trained on. `tokenizer` must be like it but for the size; its codes are not revived."""

    @model_validator(mode="after")
    def _alone(self) -> Self:
        if self.run.devices * self.run.nodes > 1:
            raise ValueError("a tokenizer is trained by one process; leave run.devices and run.nodes at 1")
        if self.run.peak_tflops is not None:
            raise ValueError("the operations of a tokenizer are not counted; leave run.peak_tflops out")
        return self


class DiffusionRecipe(_Recipe):
    """Train the masked diffusion transformer on tokens of every modality."""

    kind: Literal["diffusion"] = "diffusion"
    image_tokenizer: str
    """A folder that a tokenizer recipe exported, "mini" for the bundled one, or that of a model (a folder or
    `owner/name` on the Hugging Face hub)."""
    text_tokenizer: str = "mini"
    """A `tokenizer.json`, "mini", or "warm_start": that of the checkpoint, whose ids are kept. Those of pictures are
    added where it is a text-only model, codes last."""
    template: PromptTemplate
    tasks: dict[str, TaskText] = STANDARD
    """How each task is said to the model."""
    backbone: BackboneConfig
    mixture: MixtureConfig
    schedule: ScheduleConfig
    times: TimesConfig
    corruption: CorruptionConfig
    loss_weight: LossWeightConfig
    kind_weights: dict[str, Annotated[float, Field(ge=0)]] = Field(default={})
    """How much the targets of a kind count ("text", "padding", a modality as "image"); 1 where it is not said."""
    complementary: bool = False
    """Learn every pack twice, the second time with those targets masked that were not: each once, at twice the cost."""
    full_up_to: int = Field(default=5, ge=0)
    """Targets of at most this many tokens are masked entirely (SPEC section 3)."""
    accumulate: int = Field(default=1, ge=1)
    """Packs that an optimiser step's examples are split into; the loss is that of one big pack."""
    pack_tokens: int | None = Field(default=None, ge=1)
    """Most tokens that are computed together: a pack of more is divided, by whole examples, and its loss stays that of
    one; None: any number."""
    slice_loss: bool = False
    """Softmax over the ids of the position's modality only; False is the paper's full vocabulary."""
    loss_chunk: int = Field(default=4096, ge=1)
    """Masked rows whose logits exist at one time."""
    recompute: Recompute = "none"
    """What a block made is made again for the gradients, to save memory: nothing, what is cheap, or all."""
    compile: bool = False
    """Compile the transformer's blocks (`torch.compile`): how it is computed, so equal but for rounding."""
    sampling: ImageSettings = ImageSettings()
    """How the exported model makes pictures where a request does not say."""
    ema: float = Field(default=0.999, ge=0, lt=1)
    """Decay of the averaged weights, which are what is shown and exported; 0: none are kept, the last weights are."""
    place_codes: bool = True
    """Start the image codes' embedding and head rows as the tokenizer's code vectors lie to each other."""
    warm_start: str | None = None
    """A checkpoint whose weights are taken over: a folder in our layout or the released one, or `owner/name` on the
    Hugging Face hub. It has the same shape, or fewer codes: those that the image tokenizer was extended by start as
    the old codes whose vectors lie nearest, and in the head as those that they stand for in pairs of pictures. Or it
    is a text-only model (with text_tokenizer "warm_start"): the rows of the added ids are drawn as the others are
    distributed."""
    new_rows_steps: int = Field(default=0, ge=0)
    """Steps at the start in which nothing is trained but the embedding and head rows of ids that the warm start
    lacked."""
    lora: LoRAConfig | None = None
    """Train low-rank adapters on the warm start, which is frozen, in place of its weights; None: train these."""

    @model_validator(mode="after")
    def _adapts_something(self) -> Self:
        if self.lora is not None and self.warm_start is None:
            raise ValueError("lora adapts a model that there is; set warm_start to a checkpoint")
        return self

    @model_validator(mode="after")
    def _has_start(self) -> Self:
        if self.warm_start is None and (self.text_tokenizer == OF_WARM_START or self.new_rows_steps):
            raise ValueError(
                f"text_tokenizer {self.text_tokenizer!r} with new_rows_steps {self.new_rows_steps} goes on from a"
                " checkpoint; set warm_start to one"
            )
        return self

    @model_validator(mode="after")
    def _fits_processes(self) -> Self:
        packs = self.accumulate * self.run.devices * self.run.nodes
        if packs > self.run.batch_size:
            raise ValueError(
                f"run.batch_size {self.run.batch_size} cannot be dealt to {packs} packs (accumulate x run.devices x"
                f" run.nodes); set it to at least {packs}"
            )
        if self.pack_tokens and self.run.parallel == "fsdp" and self.run.devices * self.run.nodes > 1:
            raise ValueError(
                "run.parallel fsdp needs as many packs on each process, which pack_tokens does not give; leave it out,"
                " or raise accumulate"
            )
        return self

    @model_validator(mode="after")
    def _weight_fits_schedule(self) -> Self:
        weight = self.loss_weight.weight if self.loss_weight.kind == "answer_mean" else self.loss_weight
        if weight.kind == "inverse_share" and self.schedule.kind != "linear":
            raise ValueError(
                f"loss_weight inverse_share is made for the linear schedule, not {self.schedule.kind};"
                " use schedule_weight, which fits every schedule"
            )
        return self


Recipe = Annotated[TokenizerRecipe | DiffusionRecipe, Field(discriminator="kind")]
