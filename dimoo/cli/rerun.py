"""rerun: make a result again from the record that it carries."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dimoo.cli.files import output_paths, read_picture, write_picture
from dimoo.cli.options import MODEL, PATH_HELP, Attention, Device, DType, Quantize, WithAdapter, open_model
from dimoo.core.errors import BackendError, CheckpointError, RequestError

if TYPE_CHECKING:
    from PIL.Image import Image

    from dimoo.tasks.model import Dimoo
    from dimoo.tasks.records.record import Maker, Record, Result

_log = logging.getLogger(__name__)


def rerun(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A picture that a command wrote, or the JSON that ask or chat printed."),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Where the picture goes, as F.png; not for words.")
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print one JSON object: out or answer, equal (null: not known), model, fingerprint."
        ),
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", metavar="PATH", rich_help_panel=MODEL, help=f"{PATH_HELP}  [default: the one recorded]"
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", rich_help_panel=MODEL, help="Take a model that is not the one recorded.")
    ] = False,
    device: Annotated[
        Device | None,
        typer.Option(
            "--device",
            rich_help_panel=MODEL,
            help="[default: the recorded one where there is such a device, else auto]",
        ),
    ] = None,
    attention: Annotated[
        Attention | None,
        typer.Option(
            "--attention", rich_help_panel=MODEL, help="[default: the recorded one where it can be had, else auto]"
        ),
    ] = None,
    adapter: WithAdapter = None,
) -> None:
    """Make a picture or an answer again from its record.

    Model (quantised as it was), request and settings are those of the record. Prints the path of the picture, or the
    answer. Exit status: 0 it came out the same, 1 it did not.
    """
    from dimoo.core.requests import AskRequest, ChatRequest
    from dimoo.tasks.records.picture_files import read_record
    from dimoo.tasks.records.provenance import maker_of
    from dimoo.tasks.records.record import result_of, told_of
    from dimoo.tasks.records.recorded import Choosing
    from dimoo.tasks.records.remake import remake

    record = read_record(file)
    asked, before = told_of(record), record.result
    words = isinstance(asked, AskRequest | ChatRequest | Choosing) if before is None else before.size is None
    if words and out is not None:
        raise typer.BadParameter(f"{file} tells of words, which are printed; leave it out", param_hint="--out")
    if not words and out is None:
        raise typer.BadParameter(f"{file} tells of a picture; say where it goes, as --out H.png", param_hint="--out")
    paths = [] if out is None else output_paths(out, 1)
    _check_unchanged(file, before)

    dimoo = _opened(record, model, device, attention, adapter, force=force)
    made = _chosen(remake(dimoo, record), record)
    equal = None if before is None else result_of(made, before.part) == before
    said: dict[str, Any] = {"answer": made} if isinstance(made, str) else {"out": str(out)}
    if not isinstance(made, str):
        write_picture(made, paths[0])
    said |= {"equal": equal, "model": dimoo.source, "fingerprint": dimoo.fingerprint}
    typer.echo(json.dumps(said, indent=2) if as_json else said.get("answer", out))
    if equal is False:
        then, now = record.model, maker_of(dimoo)
        raise RequestError(
            f"the result differs from the recorded one, which dimoo {then.dimoo} made with torch {then.torch} on"
            f" {then.device} (attention {then.attention}); this is dimoo {now.dimoo} with torch {now.torch} on"
            f" {now.device} (attention {now.attention})"
        )


def _check_unchanged(file: Path, before: Result | None) -> None:
    """Refuse a PNG whose pixels are not those that its record tells of: what comes out would not be equal to it."""
    from dimoo.tasks.records.record import result_of

    if before is None or before.size is None or file.suffix.lower() != ".png":
        return
    if result_of(read_picture(file), before.part) != before:
        raise RequestError(
            f"{str(file)!r} was changed after it was made: its pixels are not the recorded ones, so that making it"
            " again gives another picture; rerun the file as it was written"
        )


def _opened(
    record: Record,
    model: str | None,
    device: Device | None,
    attention: Attention | None,
    adapter: str | None,
    *,
    force: bool,
) -> Dimoo:
    """The model that a record names, or another one that has its fingerprint, or any by force."""
    then = record.model
    source = then.source if model is None else model
    if source is None:
        raise RequestError(f"the record does not say where the model {then.name!r} is; give --model PATH")
    if then.dtype not in [kind.value for kind in DType]:
        raise RequestError(
            f"the model computed in {then.dtype}; run dimoo.tasks.records.remake.remake in Python instead"
        )
    dtype = DType(then.dtype)
    where = _device(then, dtype) if device is None else device
    kind = Attention(then.attention) if attention is None and then.attention is not None else attention
    kept = None if then.quantize is None else Quantize(then.quantize)
    if kept is not None:
        from dimoo.backbone.quantized import check_quantize

        check_quantize(kept.value)  # now: an error of this kind below is taken for one of the attention's
    try:
        dimoo = open_model(source, where, dtype, kind, quantize=kept, compile=then.compile, adapter=adapter)
    except BackendError as error:
        if attention is not None or (kind is None and not then.compile):
            raise
        _log.warning("it cannot be had computed as recorded: %s; the result may differ", error)
        dimoo = open_model(source, where, dtype, quantize=kept, adapter=adapter)
    if dimoo.fingerprint != then.fingerprint and not force:
        raise CheckpointError(
            f"{source!r} is another model: its fingerprint is {dimoo.fingerprint}, that of the recorded model"
            f" {then.name!r} {then.fingerprint}; give --model PATH of that one, with the --adapter that it had,"
            " or --force"
        )
    return dimoo


def _device(then: Maker, dtype: DType) -> Device:
    """The recorded device where it is there, else auto: other hardware rounds otherwise, so that is said."""
    from dimoo.core.device import precision, usable

    try:
        usable(then.device, precision(dtype.value))
        return Device(then.device)
    except (BackendError, ValueError):
        _log.warning("the record is of the device %r, which is not here; the result may differ", then.device)
        return Device.AUTO


def _chosen(made: Any, record: Record) -> Image | str:
    """The part of a result that the record is of; the first picture where it does not say."""
    from PIL.Image import Image

    if not isinstance(made, tuple):
        return made  # type: ignore[no-any-return]
    if record.result is not None and record.result.part is not None:
        return made[record.result.part]  # type: ignore[no-any-return]
    return next((part for part in made if isinstance(part, Image)), made[0])
