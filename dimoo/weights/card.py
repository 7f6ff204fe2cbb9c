"""The model card of a checkpoint, made from what it is."""

from __future__ import annotations

from dimoo.version import __version__
from dimoo.weights.layout import Parts

HERE = "path/to/this/folder"
"""How a card on disk says where it is: the folder may be moved."""


def model_card(parts: Parts, *, parameters: int, dtype: str, layout: str, where: str) -> str:
    """A README.md with the hub's header: what the model is and how to run it.

    Args:
        parts: everything but the weights.
        parameters: of the backbone.
        dtype: of the weights in the files.
        layout: how the files are arranged.
        where: what to give to `dimoo.load`: a repository on the hub, or a folder.
    """
    config, image = parts.config, parts.image
    shape, vocabulary = config.backbone, config.vocabulary
    tags = ["dimoo", "masked-diffusion", "any-to-any" if image is not None else "text-generation"]
    rows = [
        ("backbone", f"bidirectional transformer, {shape.layers} layers of width {shape.d_model}, {shape.heads} heads"),
        ("parameters", f"{parameters:,} in {dtype}"),
        ("text", f"{parts.text.size:,} tokens, fingerprint `{parts.text.fingerprint}`"),
    ]
    if image is not None:
        down = "x".join(map(str, image.downsampling))
        rows.append(("images", f"{image.codebook_size:,} codes of {down} pixels, fingerprint `{image.fingerprint}`"))
        rows.append(
            ("picture size", "x".join(map(str, config.image_size)) + " (height x width) unless asked otherwise")
        )
    rows += [("ids", f"{vocabulary.size:,}"), ("layout", f"`{layout}`, written by dimoo {__version__}")]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    draw, talk = 'model.generate("a lighthouse at dusk")[0].save("out.png")', 'print(model.chat("What is a mask?"))'
    return f"""---
library_name: dimoo
pipeline_tag: {"text-generation" if image is None else "any-to-any"}
tags: [{", ".join(tags)}]
---

# {config.name}

A masked discrete diffusion model: everything that it makes is filled in from masked tokens by one bidirectional
transformer.

| | |
|---|---|
{table}

```python
import dimoo

model = dimoo.load("{where}")
{talk if image is None else draw}
```

This card was generated from the checkpoint. What the model was trained on, how well it does and what it should not be
used for is for its authors to add.
"""
