"""Lumina-DiMOO 8B as released (arXiv 2510.06308), as data: shape, ids, prompts, sizes and sampling. Free of torch.

    model = dimoo.load("path/to/Lumina-DiMOO")                                # samples with `image_settings()`
    model.generate("a lighthouse", settings=image_settings("bfloat16"))       # samples as the release does

Which of the two, and why there are two, is the noise trap: see `image_settings`. Figures are the paper's where it gives
them, else those of the authors' released code and checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping

from dimoo.diffusion.config import (
    CategoricalConfig,
    GreedyConfig,
    GumbelConfidenceConfig,
    NoiseDtype,
    ProbabilityConfig,
)
from dimoo.diffusion.order_config import MaskGITOrderConfig
from dimoo.presets import families, llada_8b
from dimoo.presets.config import ImageSettings, ModelConfig, TextSettings
from dimoo.presets.tasks import STANDARD, TaskText
from dimoo.tokenizers.template import PromptTemplate
from dimoo.tokenizers.vocabulary import Modality, Vocabulary

REPOSITORY = "Alpha-VLLM/Lumina-DiMOO"
"""Of the checkpoint, on the Hugging Face hub."""

BACKBONE = llada_8b.BACKBONE.model_copy(update={"vocab_size": 134_548})
"""LLaDA-8B's shape (the checkpoint's config.json) with rows for the codes; 8,081,805,312 parameters."""

TOKENS: Mapping[str, tuple[tuple[str, ...], int]] = {
    "mask": (("<|mdm_mask|>", "<|mask|>"), 126_336),
    "pad": (("<|pad|>",), 126_339),
    "end_of_text": (("<|endoftext|>",), 126_081),
    "end_of_line": (("<end_of_line>",), 126_084),
    "unconditional": (("<uncondition>",), 126_351),
    "answer_start": (("<answer>",), 126_354),
    "answer_end": (("</answer>",), 126_355),
    "image_start": (("<IMAGE>",), 126_349),
    "image_end": (("</IMAGE>",), 126_350),
}
"""Special tokens by the vocabulary's names: (spellings to look for in a tokenizer, the released one first; released
id). dimoo's own spellings are accepted too, so that tokenizers made here serve in this layout."""
UNSPELLED = frozenset({"pad", "end_of_line"})
"""Tokens whose released spelling is not known to us, but their ids are: the spelling in `TOKENS` is dimoo's own."""

VOCABULARY = Vocabulary(
    text_size=126_356,
    mask=TOKENS["mask"][1],
    pad=TOKENS["pad"][1],
    end_of_text=TOKENS["end_of_text"][1],
    end_of_line=TOKENS["end_of_line"][1],
    unconditional=TOKENS["unconditional"][1],
    answer_start=TOKENS["answer_start"][1],
    answer_end=TOKENS["answer_end"][1],
    modalities=(
        Modality(
            name="image",
            start=126_356,
            size=8192,
            opening=TOKENS["image_start"][1],
            closing=TOKENS["image_end"][1],
        ),
    ),
)
"""LLaDA's text ids and the tags, then the 8,192 codes of the aMUSEd VQ-GAN: 134,548 ids (the paper)."""

SYSTEMS: Mapping[str, str] = {
    families.TEXT_TO_IMAGE: "Generate an image according to the text prompt.",
    families.UNDERSTANDING: (
        "You are a multimodal model that can process both text and images. Answer the following question based on the"
        " provided images. Analyze each image and combine relevant details to answer."
    ),
    families.EDITING: "Generate an image applying the following editing instruction based on the original image.",
    families.DENSE: "Perform dense prediction on the given images.",
    families.CONTROL: "Generate an image according to the text prompt and the given control image.",
    families.SUBJECT: "Generate an image according to the text prompt and the given object image.",
    families.MULTI_VIEW: "Generate a view-image based on the given image.",
    families.STYLE: "Transform the current image into the style of the provided image.",
    families.OTHER: "Generate an image according to the prompt and image.",
}
"""The system prompt of each task family, word for word as in the released code: the weights were trained with it."""

TEMPLATE = PromptTemplate(systems=dict(SYSTEMS), max_prompt_tokens=1024)
"""The released trainer cuts the text of a prompt at 1,024 tokens."""

STYLE_TEXT = SYSTEMS[families.STYLE]
"""What the user says in style transfer: the system sentence once more. Two pictures follow: content, then style."""

DENSE_MAPS: Mapping[str, str] = {
    "canny": "canny edge map",
    "hed": "hed edge map",
    "normal": "normal map",
    "mask": "sam2 mask",
    "depth": "depth map",
    "pose": "pose estimation map",
}
"""The maps of dense prediction, by a short name, as the released prompts call them."""

TASKS: Mapping[str, TaskText] = {
    **STANDARD,
    "style": STANDARD["style"].model_copy(update={"text": STYLE_TEXT}),
    "restyle": STANDARD["restyle"].model_copy(update={"family": families.EDITING}),
    "control": STANDARD["control"].model_copy(
        update={"text": "{words}", "options": {kind: kind for kind in ("canny", "depth", "hed", "pose")}}
    ),
    "predict": STANDARD["predict"].model_copy(
        update={"text": "Generate a {option} according to the image.", "options": dict(DENSE_MAPS)}
    ),
    "view": STANDARD["view"].model_copy(
        update={"text": "Generate the {option} view based on the provided front view."}
    ),
}
"""What the released model can be asked, word for word where the release fixes the words. A map that controls a picture
stands for itself: the prompt does not say its kind. That a style which is named counts as editing is our reading."""

IMAGE_SIZE = (1024, 1024)
"""(height, width) in pixels where a request names none: 64 x 64 codes."""
GENERATION_TARGET = 1024
"""What the release makes of words: pictures of one of the 97 `buckets` of about 1024^2 pixels. Any size on the grid of
16 pixels is taken; it was taught these."""
INPUT_TARGET = 512
"""Input pictures of image-to-image tasks, and several pictures in understanding: one of the 49 of about 512^2."""
SINGLE_INPUT_TARGET = 1024
"""One picture in understanding, as the released inference script sizes it."""

ANSWER_TOKENS = 1024
"""Planned for an answer: what training pads text answers to, and the length of the paper's speed figures."""
CAPTION_TOKENS = ANSWER_TOKENS
"""Planned for a caption: as long, for training knew no other length; a caption that ends early stops early."""

RETUNED_TEMPERATURE, RETUNED_TOP_K = 0.9, 96
"""Of the draw of codes with correct noise; `image_settings` says why."""


def image_settings(noise_dtype: NoiseDtype = "float32") -> ImageSettings:
    """Sampling of pictures: 64 steps, guidance 4, the cosine schedule, a random code and noisy confidence.

    Prompts with pictures are guided by text and picture apart: 2.5 for the text, 4 for the picture.

    The noise trap. The release draws its Gumbel noise -log(-log u) in the dtype of the logits. In bfloat16 no u lies
    between 1 - 2^-8 and 1, which caps the noise at 5.5: an unlikely code can never win, and the released "temperature
    1" is in truth a sampler without a tail. Whoever mends the noise and leaves the temperature gets another, wilder
    sampler. So there are two settings, and `noise_dtype` is the dtype of both draws, of code and of confidence:

    - "bfloat16": as released, temperature 1 and the cap. Take it to reproduce the release.
    - "float32" (or "float64"), the default: noise without a cap, at temperature 0.9 among the 96 likeliest codes. Of a
      grid, `python -m benchmarks.noise` found these closest to the released draw. Over 8,192 codes, logits N(0, 3^2):

          noise      temperature   top_k   mass of 64 likeliest   entropy    total variation to the release
          bfloat16   1.0           all     0.94                   3.43 nats  0
          float32    1.0           all     0.68                   5.05 nats  0.27
          float32    0.9           96      0.94                   3.37 nats  0.056

    This matches distributions on synthetic logits of that spread. At 2 in place of 3 it is 0.17 from the release and
    0.083 could be had (0.85 among 192), at 4 it is 0.049 and 0.040 could be had (0.95 among 64). Whether
    the pictures are as good could not be judged: it takes the 8B weights. If you have them, compare both.

    The confidence has temperature 1 in both, as released.
    """
    released = noise_dtype == "bfloat16"
    return ImageSettings(
        steps=64,
        guidance=4.0,
        conditions={"no_text": 2.5, "no_image": 4.0},
        order=MaskGITOrderConfig(),
        draw=CategoricalConfig(
            temperature=1.0 if released else RETUNED_TEMPERATURE,
            top_k=None if released else RETUNED_TOP_K,
            noise=noise_dtype,
        ),
        confidence=GumbelConfidenceConfig(temperature=1.0, noise=noise_dtype),
    )


def text_settings() -> TextSettings:
    """Sampling of text, the paper's speed setting: 128 steps for 1,024 tokens in blocks of 256, greedy, no guidance.

    Confidence is the probability in float64, as in the released code: near 1, where float32 would see ties, the order
    still counts.
    """
    return TextSettings(
        steps_per_token=0.125,
        block=256,
        draw=GreedyConfig(),
        confidence=ProbabilityConfig(dtype="float64"),
    )


def lumina_dimoo_8b(noise_dtype: NoiseDtype = "float32") -> ModelConfig:
    """Everything about the released model but its weights.

    Args:
        noise_dtype: "bfloat16" samples pictures with the release's settings and noise, whose tail is cut; "float32"
            with correct noise at settings retuned for it. Read `image_settings` before you choose or compare.
    """
    return ModelConfig(
        name="lumina-dimoo-8b",
        backbone=BACKBONE,
        vocabulary=VOCABULARY,
        template=TEMPLATE,
        tasks=dict(TASKS),
        image=image_settings(noise_dtype),
        text=text_settings(),
        image_size=IMAGE_SIZE,
        input_targets=(SINGLE_INPUT_TARGET, INPUT_TARGET),
        answer_tokens=ANSWER_TOKENS,
        caption_tokens=CAPTION_TOKENS,
    )
