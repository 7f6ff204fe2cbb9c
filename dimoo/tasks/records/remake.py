"""Whatever a record tells of, made again."""

from __future__ import annotations

from typing import Any

from dimoo.tasks.model import Dimoo
from dimoo.tasks.records.record import Record, told_of
from dimoo.tasks.records.recorded import Choosing, Session
from dimoo.tasks.retouching import Retouching


def remake(model: Dimoo, record: Record) -> Any:
    """What comes of a record's request: a picture, words, or a tuple of them; of a session its last picture, of a
    choice the answer.

    Raises:
        DataError: the record is damaged, or a picture is not there or has other pixels than were recorded.
        RequestError: the model cannot serve it.
    """
    match told_of(record):
        case Session() as session:
            return Retouching.resumed(model, session).picture
        case Choosing(images=images, question=question, choices=choices):
            return model.choose(images, question, choices).answer
        case request:
            return model.run([request], image=record.image, text=record.text)[0]
