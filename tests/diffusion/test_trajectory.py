import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from sampler_oracle import CODES, MASK, STOP, FakeDenoiser

from dimoo.core.errors import DataError
from dimoo.core.rng import generator
from dimoo.diffusion.canvas import Canvas, Plan, Span
from dimoo.diffusion.confidence import GumbelConfidence
from dimoo.diffusion.draw import Categorical
from dimoo.diffusion.guidance import ClassifierFree, NoGuidance
from dimoo.diffusion.orders import BlockOrder, MaskGITOrder
from dimoo.diffusion.remasking import NoRemasking, Refinement, ReMDM
from dimoo.diffusion.sampler import State, sample
from dimoo.diffusion.schedules import Cosine
from dimoo.diffusion.stopping import NoStop, StopAtToken
from dimoo.diffusion.trajectory import FORMAT, Recorder, load, replay, save


def plan(steps, order, **changes):
    parts = {
        "draw": Categorical(),
        "confidence": GumbelConfidence(),
        "guidance": NoGuidance(),
        "stopping": NoStop(),
        **changes,
    }
    return Plan(steps=steps, order=order, **parts)


def start_canvas(remasking):
    """A row of words that stops early beside a picture; a row of words that may draw the mask itself."""
    first = [1, *[MASK] * 8, STOP, *[MASK] * 5, 30]
    second = [MASK] * 6
    words = plan(8, BlockOrder(block=2), stopping=StopAtToken(token=2))
    spans = (
        Span(
            row=0,
            positions=torch.tensor([10, 11, 12, 13, 14, 15]),
            columns=CODES,
            plan=plan(4, MaskGITOrder(schedule=Cosine()), guidance=ClassifierFree(scale=1.0), remasking=remasking),
        ),
        Span(row=0, positions=torch.arange(1, 9), columns=(2, 4), plan=words, fill=5),
        Span(row=1, positions=torch.arange(16, 22), columns=(17, 20), plan=plan(6, BlockOrder(block=3))),
    )
    return Canvas.start(ids=torch.tensor(first + second), lengths=(16, 6), spans=spans, mask_id=MASK)


def run_states(seed, remasking=NoRemasking()):  # noqa: B008 - frozen
    start = start_canvas(remasking)
    return start, list(sample(FakeDenoiser(), start, [generator(seed), generator(seed, "other")]))


def recorded(start, states, count=None):
    recorder = Recorder(iter(states), start)
    for _ in range(len(states) if count is None else count):
        next(recorder)
    return recorder.trajectory


def assert_same(replayed, states):
    replayed = list(replayed)
    assert len(replayed) == len(states)
    for made, wanted in zip(replayed, states, strict=True):
        assert torch.equal(made.canvas.ids, wanted.canvas.ids)
        assert torch.equal(made.canvas.masked, wanted.canvas.masked)
        assert (made.canvas.lengths, made.canvas.mask_id) == (wanted.canvas.lengths, wanted.canvas.mask_id)
        assert made.committed.tolist() == wanted.committed.tolist()
        assert (made.step, made.steps, made.share_done) == (wanted.step, wanted.steps, wanted.share_done)


REMASKINGS = [NoRemasking(), ReMDM(eta=1.0), Refinement(rounds=3, share=0.5)]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("remasking", REMASKINGS)
def test_a_replay_is_the_run(seed, remasking, tmp_path):
    start, states = run_states(seed, remasking)
    trajectory = recorded(start, states)
    assert torch.equal(trajectory.ids, start.ids)
    assert torch.equal(trajectory.masked, start.masked)
    assert_same(replay(trajectory), states)
    assert_same(replay(trajectory), states)  # once more: it is not used up
    save(trajectory, tmp_path / "run.safetensors")
    assert_same(replay(load(tmp_path / "run.safetensors")), states)


def test_the_runs_have_what_is_hard_to_record():
    """Positions filled by an early stop, a mask drawn and drawn again, and an order of positions of its own."""
    filled, drawn_masks, unsorted = 0, 0, 0
    for seed in range(6):
        start, states = run_states(seed)
        before = start.ids
        for state, move in zip(states, recorded(start, states).moves, strict=True):
            changed = (state.canvas.ids != before).nonzero().squeeze(1)
            rest = move.positions[move.drawn :]
            assert set(rest.tolist()) == set(changed.tolist()) - set(state.committed.tolist())
            assert set(move.ids[move.drawn :].tolist()) <= {5}  # the fill
            filled += rest.numel()
            drawn_masks += int((move.ids == MASK).sum())
            unsorted += move.positions[: move.drawn].tolist() != state.committed.sort().values.tolist()
            before = state.canvas.ids
    assert filled
    assert drawn_masks
    assert unsorted


def test_what_is_taken_back_is_recorded():
    """Tokens masked again stand behind those drawn; a round of refinement draws what had a token."""
    again = rewritten = 0
    for seed in range(6):
        for remasking in REMASKINGS[1:]:
            start, states = run_states(seed, remasking)
            made = torch.zeros_like(start.masked)
            for move in recorded(start, states).moves:
                drawn, rest = move.positions[: move.drawn], move.positions[move.drawn :]
                again += int((made[rest] & (move.ids[move.drawn :] == MASK)).sum())
                rewritten += int((made[drawn] & (move.ids[: move.drawn] != MASK)).sum())
                made[move.positions] = move.ids != MASK
    assert again
    assert rewritten


def test_the_recorder_passes_the_states_on_and_takes_none_ahead():
    start, states = run_states(0)
    taken = []

    def stream():
        for state in states:
            taken.append(state)
            yield state

    recorder = Recorder(stream(), start)
    assert recorder.trajectory.moves == ()
    for count, state in enumerate(recorder, start=1):
        assert state is states[count - 1]
        assert len(taken) == count == len(recorder.trajectory.moves)
    assert count == len(states)


@pytest.mark.parametrize("count", [0, 2])
def test_a_cancelled_run(count, tmp_path):
    start, states = run_states(1)
    save(recorded(start, states, count), tmp_path / "run.safetensors")
    loaded = load(tmp_path / "run.safetensors")
    assert_same(replay(loaded), states[:count])
    assert torch.equal(loaded.ids, start.ids)


IDS = st.lists(st.integers(0, 9), min_size=7, max_size=7)


@settings(deadline=None)
@given(st.lists(IDS, min_size=1, max_size=6), st.lists(st.permutations(range(7)), min_size=6, max_size=6), st.data())
def test_any_states_are_replayed(lines, orders, data):
    """Whatever a step changes, masking again among it, and whichever positions it names."""
    mask = 0
    canvases = [
        Canvas(ids=ids, masked=ids == mask, lengths=(3, 4), spans=(), mask_id=mask) for ids in map(torch.tensor, lines)
    ]
    start, total = canvases[0], max(1, lines[0].count(mask))
    states = [
        State(
            step=step,
            steps=9,
            canvas=canvas,
            committed=torch.tensor(order[: data.draw(st.integers(0, 7))], dtype=torch.int64),
            share_done=1 - int(canvas.masked.sum()) / total,
        )
        for step, (canvas, order) in enumerate(zip(canvases[1:], orders, strict=False), start=1)
    ]
    assert_same(replay(recorded(start, states)), states)


def test_recording_and_replaying_change_neither_the_run_nor_the_record():
    start, states = run_states(2)
    kept = [state.canvas.ids.clone() for state in states]
    trajectory = recorded(start, states)
    for state in replay(trajectory):
        state.canvas.ids.fill_(7)
    assert_same(replay(trajectory), states)
    assert all(torch.equal(state.canvas.ids, ids) for state, ids in zip(states, kept, strict=True))


def test_a_record_so_far_is_a_beginning_of_the_record():
    start, states = run_states(1)
    recorder = Recorder(iter(states), start)
    early = [recorder.trajectory, *(recorder.trajectory for _ in recorder)]
    for count, trajectory in enumerate(early):
        assert_same(replay(trajectory), states[:count])
    assert_same(replay(recorder.trajectory), states)


# Files


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "run.safetensors"
    save(recorded(*run_states(0)), path)
    return path


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file(file, share):
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DataError, match=re.escape(f"cannot read the trajectory {file}")):
        load(file)


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir(), lambda path: path.write_text("x" * 99)])
def test_what_is_no_safetensors_file(tmp_path, make):
    path = tmp_path / "run.safetensors"
    make(path)
    with pytest.raises(DataError, match="cannot read the trajectory"):
        load(path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"format": "dimoo-trajectory-0"}])
def test_other_safetensors_files(tmp_path, metadata):
    path = tmp_path / "model.safetensors"
    save_file({"ids": torch.zeros(3)}, path, metadata=metadata)
    with pytest.raises(DataError, match=f"not '{FORMAT}': record the run again"):
        load(path)


def tensors_of(trajectory):
    return {
        "ids": trajectory.ids,
        "lengths": torch.tensor(trajectory.lengths),
        "positions": torch.cat([move.positions for move in trajectory.moves]),
        "written": torch.cat([move.ids for move in trajectory.moves]),
        "sizes": torch.tensor([move.positions.numel() for move in trajectory.moves]),
        "drawn": torch.tensor([move.drawn for move in trajectory.moves]),
        "mask_id": torch.tensor(trajectory.mask_id),
        "steps": torch.tensor(trajectory.steps),
    }


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("ids", lambda x: x[:-1]),
        ("ids", lambda x: x.float()),
        ("lengths", lambda x: x + torch.tensor([1, -1]) * 30),
        ("positions", lambda x: x + 20),
        ("positions", lambda x: x - 20),
        ("written", lambda x: x[:-1]),
        ("sizes", lambda x: x[1:]),
        ("sizes", lambda x: x + 1),
        ("drawn", lambda x: x + 9),
        ("drawn", lambda x: x - 9),
        ("steps", lambda x: x * 0),
        ("steps", lambda x: x[None]),
        ("mask_id", lambda x: None),
        ("more", lambda x: torch.tensor(1)),
    ],
)
def test_parts_that_contradict_each_other(tmp_path, name, change):
    path = tmp_path / "run.safetensors"
    tensors = tensors_of(recorded(*run_states(0)))
    save_file(tensors, path, metadata={"format": FORMAT})
    load(path)
    tensors[name] = change(tensors.get(name))
    save_file({key: value for key, value in tensors.items() if value is not None}, path, metadata={"format": FORMAT})
    with pytest.raises(DataError, match="contradict each other"):
        load(path)


def test_a_place_that_cannot_be_written(tmp_path):
    with pytest.raises(DataError, match="cannot write"):
        save(recorded(*run_states(0)), tmp_path / "missing" / "run.safetensors")
