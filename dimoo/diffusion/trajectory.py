"""The record of a run: what every step wrote. It is replayed without a network, exactly.

    recorder = Recorder(sample(denoiser, canvas, generators), canvas)
    for state in recorder: ...
    save(recorder.trajectory, path)
    for state in replay(load(path)): ...

A trajectory on disk is one safetensors file of a few bytes per token and step. Axes: C = canvas tokens, R = rows,
T = steps taken, k = positions that one step wrote, W = those of all steps, one step after the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from dimoo.core.errors import DataError
from dimoo.diffusion.canvas import Canvas
from dimoo.diffusion.sampler import State

FORMAT: Final = "dimoo-trajectory-1"
_AXES = {"ids": 1, "lengths": 1, "positions": 1, "written": 1, "sizes": 1, "drawn": 1, "mask_id": 0, "steps": 0}
"""What a file holds, all int64: tensors by the number of their axes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Move:
    """What one step wrote."""

    positions: Tensor
    """int64 [k]: canvas positions; first those that were drawn, in the order in which the state named them, then what
    else changed, as where an early stop filled a row."""
    ids: Tensor
    """int64 [k]: their new ids; the mask's where a position is masked again or still."""
    drawn: int
    """How many of the positions were drawn."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Trajectory:
    """A run from its first canvas on, on the CPU; it needs not have come to its end."""

    ids: Tensor
    """int64 [C]: before the first step."""
    lengths: tuple[int, ...]
    """Canvas tokens of each row; they sum to C."""
    mask_id: int
    steps: int
    """How many there were to be at most."""
    moves: tuple[Move, ...]
    """One for each step taken."""

    @property
    def masked(self) -> Tensor:
        """bool [C]: what was to be made."""
        return self.ids == self.mask_id


class Recorder:
    """The states of a run, passed on and recorded; `trajectory` is what was recorded so far.

    A step takes nothing to the host: its ids are kept where they are, 8 bytes a canvas token, until the trajectory is
    asked for.
    """

    def __init__(self, states: Iterator[State], start: Canvas) -> None:
        """Args:
        states: of the run that begins at `start`; none may have been taken yet.
        start: the canvas before the first step.
        """
        self._states, self._start = states, start
        self._last, self._unread = start.ids, list[tuple[Tensor, Tensor]]()
        self._steps, self._moves = 0, list[Move]()

    @property
    def trajectory(self) -> Trajectory:
        """From the start to the last state that was taken."""
        for ids, drawn in ((ids.cpu(), drawn.cpu()) for ids, drawn in self._unread):
            others = ids != self._last.cpu()
            others[drawn] = False
            positions = torch.cat([drawn, others.nonzero().squeeze(1)])
            self._moves.append(Move(positions=positions, ids=ids[positions], drawn=drawn.numel()))
            self._last = ids
        self._unread.clear()
        return Trajectory(
            ids=self._start.ids.cpu().clone(),
            lengths=self._start.lengths,
            mask_id=self._start.mask_id,
            steps=self._steps,
            moves=tuple(self._moves),
        )

    def __iter__(self) -> Iterator[State]:
        """The states still to come."""
        return self

    def __next__(self) -> State:
        """Take a step and record it."""
        state = next(self._states)
        self._unread.append((state.canvas.ids, state.committed))
        self._steps = state.steps
        return state


def replay(trajectory: Trajectory) -> Iterator[State]:
    """The states of the recorded run, but that their canvases are on the CPU and have no spans.

    Yields:
        A `State` for every step recorded.
    """
    canvas = Canvas(
        ids=trajectory.ids,
        masked=trajectory.masked,
        lengths=trajectory.lengths,
        spans=(),
        mask_id=trajectory.mask_id,
    )
    total = max(1, int(canvas.masked.sum()))
    for step, move in enumerate(trajectory.moves, start=1):
        canvas = canvas.commit(move.positions, move.ids)
        yield State(
            step=step,
            steps=trajectory.steps,
            canvas=canvas,
            committed=move.positions[: move.drawn],
            share_done=1 - int(canvas.masked.sum()) / total,
        )


def save(trajectory: Trajectory, path: Path) -> None:
    """Write a trajectory as one safetensors file.

    Raises:
        DataError: it cannot be written.
    """
    moves, none = trajectory.moves, trajectory.ids[:0]
    tensors = {
        "ids": trajectory.ids,
        "lengths": torch.tensor(trajectory.lengths, dtype=torch.int64),
        "positions": torch.cat([none, *(move.positions for move in moves)]),
        "written": torch.cat([none, *(move.ids for move in moves)]),
        "sizes": torch.tensor([move.positions.numel() for move in moves], dtype=torch.int64),
        "drawn": torch.tensor([move.drawn for move in moves], dtype=torch.int64),
        "mask_id": torch.tensor(trajectory.mask_id),
        "steps": torch.tensor(trajectory.steps),
    }
    try:
        path.write_bytes(to_bytes(tensors, metadata={"format": FORMAT}))
    except OSError as error:
        raise DataError(f"cannot write the trajectory {path}: {error}") from error


def load(path: Path) -> Trajectory:
    """Read a trajectory that `save` wrote.

    Raises:
        DataError: the file cannot be read, is no trajectory of this format, or its parts contradict each other.
    """
    try:
        with safe_open(path, framework="pt") as file:
            found = (file.metadata() or {}).get("format")
            # Only a trajectory is read: another safetensors file may be as large as a model.
            tensors = {name: file.get_tensor(name) for name in file.keys()} if found == FORMAT else {}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise DataError(f"cannot read the trajectory {path}: {error}; record the run again") from error
    if found != FORMAT:
        raise DataError(f"{path} is of the format {found!r}, not {FORMAT!r}: record the run again with this version")
    if not _consistent(tensors):
        raise DataError(f"{path} is no whole trajectory, its parts contradict each other: record the run again")
    sizes, drawn = tensors["sizes"].tolist(), tensors["drawn"].tolist()
    parts = zip(tensors["positions"].split(sizes), tensors["written"].split(sizes), drawn, strict=True)
    return Trajectory(
        ids=tensors["ids"],
        lengths=tuple(tensors["lengths"].tolist()),
        mask_id=int(tensors["mask_id"]),
        steps=int(tensors["steps"]),
        moves=tuple(Move(positions=positions, ids=ids, drawn=count) for positions, ids, count in parts),
    )


def _consistent(tensors: dict[str, Tensor]) -> bool:
    """Whether the tensors of a file are those of a trajectory."""
    if {name: tensor.ndim for name, tensor in tensors.items()} != _AXES:
        return False
    if any(tensor.dtype != torch.int64 for tensor in tensors.values()):
        return False
    positions, sizes, drawn = tensors["positions"], tensors["sizes"], tensors["drawn"]
    canvas = tensors["ids"].numel()
    return (
        bool((tensors["lengths"] >= 0).all())
        and int(tensors["lengths"].sum()) == canvas
        and positions.shape == tensors["written"].shape
        and sizes.shape == drawn.shape
        and bool(((drawn >= 0) & (drawn <= sizes)).all())
        and int(sizes.sum()) == positions.numel()
        and bool(((positions >= 0) & (positions < canvas)).all())
        and int(tensors["steps"]) >= sizes.numel()
    )
