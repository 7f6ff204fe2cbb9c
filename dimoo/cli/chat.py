"""chat: what a language model answers."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from dimoo.cli.options import Device, DType, InDType, Model, OnDevice, Seed, WithAttention, open_model


def chat(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What you say.")],
    model: Model = "mini",
    tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens planned for the answer.  [default: the model's]")
    ] = None,
    seed: Seed = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    device: OnDevice = Device.AUTO,
    dtype: InDType = DType.FLOAT32,
    attention: WithAttention = None,
) -> None:
    """Answer a message, with a model that has a chat template.

    Prints the answer and nothing else.
    """
    dimoo = open_model(model, device, dtype, attention)
    answer = dimoo.chat(text, tokens=tokens, seed=seed)
    if as_json:
        facts = {"answer": answer, "prompt": text, "seed": seed, "tokens": dimoo.kit.planned(tokens)}
        typer.echo(json.dumps(facts, indent=2))
    else:
        typer.echo(answer)
