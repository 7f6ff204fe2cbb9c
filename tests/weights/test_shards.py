from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from dimoo.core.errors import CheckpointError
from dimoo.weights import shards
from dimoo.weights.shards import INDEX, SINGLE, Shards, survey, write


def some(count: int = 7) -> dict[str, Tensor]:
    """Tensors of different sizes, dtypes and strides; one of no axis, one empty."""
    kinds = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
    tensors = {
        f"layer.{index}.weight": torch.arange(3.0 * (index + 1)).view(3, -1).to(kinds[index % 4])
        for index in range(count)
    }
    return {**tensors, "transposed": torch.arange(6.0).view(2, 3).T, "scalar": torch.tensor(2.5), "none": torch.ones(0)}


def equal(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(
        one[name].dtype == two[name].dtype and torch.equal(one[name], two[name]) for name in one
    )


def test_one_file(tmp_path: Path) -> None:
    write(tmp_path, some())
    assert [path.name for path in tmp_path.iterdir()] == [SINGLE]
    assert equal(dict(Shards.open(tmp_path).read()), some())
    with safe_open(tmp_path / SINGLE, framework="pt") as file:
        assert file.metadata() == {"format": "pt"}  # transformers refuses files without it


@settings(max_examples=50, deadline=None)
@given(
    numbers=st.lists(st.integers(0, 40), min_size=1, max_size=12),
    shard_size=st.integers(1, 400),
    dtype=st.sampled_from([None, torch.bfloat16, torch.float64]),
)
def test_any_shard_size_writes_every_tensor_once(
    numbers: list[int], shard_size: int, dtype: torch.dtype | None
) -> None:
    tensors = {f"t{index}": torch.full((size,), float(index)) for index, size in enumerate(numbers)}
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write(folder, tensors, dtype=dtype, shard_size=shard_size)
        opened = Shards.open(folder)
        assert equal(dict(opened.read()), {name: tensor.to(dtype or tensor.dtype) for name, tensor in tensors.items()})
        held = [load_file(folder / file) for file in opened.files]
        assert sorted(name for part in held for name in part) == sorted(tensors)
        for part in held:  # a tensor that is larger than a shard stands alone
            assert len(part) <= 1 or sum(tensor.nbytes for tensor in part.values()) <= shard_size
        index = folder / INDEX
        assert index.exists() == (len(held) > 1)
        if index.exists():
            own = {name: file for file, part in zip(opened.files, held, strict=True) for name in part}
            assert json.loads(index.read_text(encoding="utf-8"))["weight_map"] == own


def test_what_headers_say(tmp_path: Path) -> None:
    write(tmp_path, some(), shard_size=40)
    opened = Shards.open(tmp_path)
    assert {name: entry.shape for name, entry in opened.entries.items()} == {
        name: tuple(tensor.shape) for name, tensor in some().items()
    }
    assert opened.nbytes == sum(tensor.nbytes for tensor in some().values())
    assert opened.numel == sum(tensor.numel() for tensor in some().values())
    # Numbers: float32 3 + 15 + 6 + 1, bfloat16 6 + 18, float16 9 + 21, float64 12.
    assert opened.dtypes == (torch.float16, torch.float32, torch.bfloat16, torch.float64)


def test_files_are_read_in_order_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, some(), shard_size=40)
    opened, now, most = [], [], []

    @contextmanager
    def counting(path: Path, framework: str) -> Iterator[object]:
        opened.append(path.name)
        now.append(path.name)
        most.append(len(now))
        with safe_open(path, framework=framework) as file:
            yield file
        now.remove(path.name)

    monkeypatch.setattr(shards, "safe_open", counting)
    found = Shards.open(tmp_path)
    assert len(found.files) > 3
    assert opened == list(found.files)  # for the headers
    opened.clear()
    reading = found.read()
    places = {name: now[:] for name, _ in reading}
    assert opened == list(found.files)
    assert max(most) == 1
    assert now == []
    assert places == {name: [entry.file] for name, entry in found.entries.items()}


def test_progress_rises_to_the_whole(tmp_path: Path) -> None:
    written: list[tuple[int, int]] = []
    read: list[tuple[int, int]] = []
    write(tmp_path, some(), dtype=torch.bfloat16, shard_size=40, progress=lambda *now: written.append(now))
    opened = Shards.open(tmp_path)
    for _ in opened.read(lambda *now: read.append(now)):
        pass
    total = 2 * sum(tensor.numel() for tensor in some().values())
    assert len(written) == len(opened.files)
    assert len(read) == len(some())
    for steps in (written, read):
        assert steps[-1] == (total, total)
        assert [done for done, _ in steps] == sorted(done for done, _ in steps)
        assert {whole for _, whole in steps} == {total}


def test_each_file_is_named_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="dimoo"):
        write(tmp_path, some(), shard_size=100)
        opened = Shards.open(tmp_path)
        list(opened.read())
    for file in opened.files:
        assert f"writing {file}" in caplog.messages
    assert f"reading {opened.files[-1]} ({len(opened.files)} of {len(opened.files)})" in caplog.messages


def test_writing_leaves_the_tensors_alone(tmp_path: Path) -> None:
    tensors = some()
    write(tmp_path, tensors, dtype=torch.float16)
    assert equal(tensors, some())


def three_files(folder: Path) -> dict[str, str]:
    """a in 1, b in 2, c in 3; what the index says of them."""
    for name, file in (("a", "one"), ("b", "two"), ("c", "three")):
        save_file({name: torch.ones(2)}, folder / f"{file}.safetensors")
    return {"a": "one.safetensors", "b": "two.safetensors", "c": "three.safetensors"}


def write_index(folder: Path, weight_map: dict[str, str]) -> None:
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}), encoding="utf-8")


def test_a_sound_folder_has_no_problems(tmp_path: Path) -> None:
    write_index(tmp_path, three_files(tmp_path))
    found, problems = survey(tmp_path)
    assert problems == []
    assert set(found.entries) == {"a", "b", "c"}


def test_every_problem_is_found_at_once(tmp_path: Path) -> None:
    weight_map = three_files(tmp_path)
    save_file({"b": torch.ones(2), "extra": torch.ones(1)}, tmp_path / "three.safetensors")
    save_file({"a": torch.ones(2, dtype=torch.int32)}, tmp_path / "one.safetensors")
    (tmp_path / "four.safetensors").write_bytes(b"no tensors")
    write_index(
        tmp_path,
        {
            **weight_map,
            "d": "four.safetensors",
            "e": "five.safetensors",
            "f": "../six.safetensors",
            "g": "one.safetensors",
        },
    )
    _, problems = survey(tmp_path)
    expected = [
        "four.safetensors is corrupt or cut off",
        "no weights at",
        "names '../six.safetensors', which is no file in the folder",
        "b is in three.safetensors and in two.safetensors",
        "a is of dtype I32; weights are F64, F32, F16, BF16",
        "says that c is in three.safetensors, which does not hold it",
        "says that g is in one.safetensors, which does not hold it",
        "three.safetensors holds extra, which",
        "says that b is in two.safetensors, which does not hold it",
    ]
    missing = [part for part in expected if not any(part in problem for problem in problems)]
    assert missing == []
    with pytest.raises(CheckpointError) as caught:
        Shards.open(tmp_path)
    assert all(problem in str(caught.value) for problem in problems)


def test_what_can_be_read_is_still_surveyed(tmp_path: Path) -> None:
    write_index(tmp_path, three_files(tmp_path))
    (tmp_path / "two.safetensors").unlink()
    found, problems = survey(tmp_path)
    assert set(found.entries) == {"a", "c"}
    assert len(problems) == 1


@pytest.mark.parametrize("index", ["{", "[]", "{}", '{"weight_map": []}', '{"weight_map": null}', "\x00"])
def test_a_broken_index_is_one_problem(tmp_path: Path, index: str) -> None:
    three_files(tmp_path)
    (tmp_path / INDEX).write_text(index, encoding="utf-8")
    found, problems = survey(tmp_path)
    assert found.entries == {}
    assert len(problems) == 1
    assert INDEX in problems[0]


def test_no_index_names_what_lies_there(tmp_path: Path) -> None:
    three_files(tmp_path)
    _, problems = survey(tmp_path)
    assert problems == [
        f"no weights at {tmp_path / SINGLE}; there are one.safetensors, three.safetensors, two.safetensors:"
        f" is {INDEX} missing?"
    ]


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    write(tmp_path, some())
    opened = Shards.open(tmp_path)
    (tmp_path / SINGLE).write_bytes((tmp_path / SINGLE).read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=f"{SINGLE} is corrupt or cut off"):
        list(opened.read())
