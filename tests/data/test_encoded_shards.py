"""Shards: what comes out is what went in with its pictures encoded, and training reads the same documents."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file

from dimoo.core.errors import CheckpointError, DataError
from dimoo.core.rng import generator
from dimoo.data import checking, encode
from dimoo.data.build import build_source, digest_of, open_files
from dimoo.data.config import FolderSourceConfig, JsonlSourceConfig, MixtureConfig, ShardSourceConfig
from dimoo.data.documents import DocumentBuilder
from dimoo.data.encode import write_shards
from dimoo.data.encoded import converted, decoded
from dimoo.data.example import LISTED, Codes, Example, Picture, TaskExample, pictures_of, pixels_of
from dimoo.data.shards import OPEN, Manifest, ShardSource
from dimoo.data.world import WorldConfig, WorldSource
from dimoo.presets.families import EDITING, TEXT_TO_IMAGE, UNDERSTANDING
from dimoo.presets.tasks import STANDARD
from dimoo.tokenizers.image.build import build_image_tokenizer
from dimoo.tokenizers.image.config import ImageTokenizerConfig, PatchNetworkConfig, VectorQuantizerConfig
from dimoo.tokenizers.image.tokenizer import ImageTokenizer
from dimoo.tokenizers.prompts import Prompts
from dimoo.tokenizers.template import PromptTemplate
from dimoo.tokenizers.text import SPECIAL_TOKENS, TextTokenizer
from dimoo.tokenizers.vocabulary import Vocabulary
from dimoo.weights.hub import MINI
from dimoo.weights.layout import TEXT

CODES = 16


def make_tokenizer(seed: int) -> ImageTokenizer:
    config = ImageTokenizerConfig(
        network=PatchNetworkConfig(width=8), quantizer=VectorQuantizerConfig(size=CODES, dim=4)
    )
    return build_image_tokenizer(config, torch.Generator().manual_seed(seed))


TOKENIZER = make_tokenizer(0)
ROWS: list[dict[str, Any]] = [
    {"image": "0.png", "caption": "a grün cat", "conversations": [{"question": "what", "answer": "a cat"}]},
    {"image": "1.png"},
    {"task": "edit", "words": "make it red", "images": ["2.png"], "image": "3.png"},
    {"images": ["0.png", "2.png", "0.png"], "conversations": [{"question": str(n), "answer": "a"} for n in range(2)]},
    {"conversations": [{"question": "hello", "answer": "hi"}]},
    {"task": "control", "option": "canny", "words": "a", "images": ["4.png"], "image": "4.png"},
    {"image": "4.png", "caption": "the last"},
]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A JSONL file of every kind of row."""
    for index, size in enumerate([(40, 60), (60, 40), (32, 32), (64, 64), (100, 30)]):
        pixels = np.random.default_rng(index).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return path


def shards(
    rows: Path,
    out: Path,
    *,
    shard: int = 3,
    tokenizer: ImageTokenizer = TOKENIZER,
    size: tuple[int, int] | int = 64,
    **seen: Any,
) -> ShardSource:
    fitted, digest = open_files(JsonlSourceConfig(path=str(rows), size=size))
    manifest = Manifest(
        fingerprint=tokenizer.fingerprint, source=digest, size=size, examples=fitted.size or 0, shard_examples=shard
    )
    write_shards(fitted, tokenizer, out, manifest=manifest, **seen)
    return ShardSource(out)


def alone(picture: Picture) -> list[Any]:
    """The codes of a picture that is encoded by itself."""
    pixels = torch.tensor(pixels_of(picture)).permute(2, 0, 1)[None].float() / 255
    return TOKENIZER.encode(pixels)[0].tolist()  # type: ignore[no-any-return]


def plain(example: Example[Picture], codes: Any) -> Any:
    """Everything about an example as plain values."""
    tasks = [
        (one.task, one.words, one.option, [codes(image) for image in one.images],
         None if one.image is None else codes(one.image), one.text, one.given, one.learn_words)
        for one in example.tasks
    ]  # fmt: skip
    return (None if example.image is None else codes(example.image), example.caption, example.qa, tasks)


@pytest.mark.parametrize("shard", [1, 3, 7, 100])
def test_what_comes_out_is_what_went_in(rows: Path, tmp_path: Path, shard: int) -> None:
    source, _ = open_files(JsonlSourceConfig(path=str(rows), size=64))
    made = shards(rows, tmp_path / "out", shard=shard)
    assert made.size == 7
    for index in range(7):
        stored = made.example(index)
        assert plain(stored, lambda picture: picture.codes.tolist()) == plain(source.example(index), alone)
        for picture in pictures_of(stored):
            assert picture.codes.dtype == np.int32
            assert picture.fingerprint == TOKENIZER.fingerprint
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == [*(f"{number:05}.safetensors" for number in range(-(-7 // shard))), "shards.json"]
    for index in (7, -1):
        with pytest.raises(IndexError, match="7 examples"):
            made.example(index)
    several = made.example(3).tasks
    assert several[0].images[0] is several[1].images[2]  # stored once


def test_more_files_than_are_held_open(tmp_path: Path) -> None:
    count = OPEN + 5
    for index in range(count):
        Image.new("RGB", (32, 32), (index, 0, 0)).save(tmp_path / f"{index:02}.png")
    source, digest = open_files(FolderSourceConfig(path=str(tmp_path), size=(32, 32)))
    manifest = Manifest(
        fingerprint=TOKENIZER.fingerprint, source=digest, size=(32, 32), examples=count, shard_examples=1
    )
    write_shards(source, TOKENIZER, tmp_path / "out", manifest=manifest)
    made = ShardSource(tmp_path / "out")
    for _ in range(2):
        assert [made.example(index).caption for index in range(count)] == [f"{index:02}" for index in range(count)]


def test_what_was_broken_off_goes_on(rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    shards(rows, whole)
    write, left = encode.write_tensors, [1]

    def full(path: Path, tensors: Any) -> None:
        if not left.pop():
            path.write_bytes(b"half of a fi")
            raise CheckpointError("the disk is full")
        left.append(0)
        write(path, tensors)

    monkeypatch.setattr(encode, "write_tensors", full)
    with pytest.raises(CheckpointError, match="full"):
        shards(rows, out)
    assert [path.name for path in out.glob("*.safetensors")] == ["00000.safetensors"]
    with pytest.raises(
        DataError, match=r"lacks 2 of 3 shards, the first is 00001\.safetensors; run dimoo encode again"
    ):
        ShardSource(out)
    monkeypatch.setattr(encode, "write_tensors", write)
    first = (out / "00000.safetensors").stat().st_mtime_ns
    seen: list[tuple[int, int]] = []
    shards(rows, out, progress=lambda done, total: seen.append((done, total)))
    assert (out / "00000.safetensors").stat().st_mtime_ns == first  # is not made again
    assert seen[0] == (3, 7)
    assert seen[-1] == (7, 7)
    names = sorted(path.name for path in whole.iterdir())
    assert sorted(path.name for path in out.iterdir()) == names
    assert all((out / name).read_bytes() == (whole / name).read_bytes() for name in names)


def test_shards_of_something_else_are_not_gone_on_with(rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shards(rows, out)
    for change, name in (
        (lambda: shards(rows, out, tokenizer=make_tokenizer(1)), "fingerprint"),
        (lambda: shards(rows, out, shard=4), "shard_examples"),
    ):
        with pytest.raises(DataError, match=f"differ from these in {name}; choose another folder"):
            change()
    for changed in (ROWS[::-1], [*ROWS, ROWS[0]], [{**ROWS[0], "caption": "a dog"}, *ROWS[1:]]):
        rows.write_text("".join(json.dumps(row) + "\n" for row in changed), encoding="utf-8")
        with pytest.raises(DataError, match=r"differ from these in .*source \(rows, words or names of pictures\);"):
            shards(rows, out)


def test_only_files_whose_pictures_have_changed_are_made_anew(rows: Path, tmp_path: Path) -> None:
    """Or that cannot be read; and the rest comes out as it would from the beginning."""
    out = tmp_path / "out"
    shards(rows, out, shard=2)
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.safetensors")}
    Image.new("RGB", (9, 99)).save(tmp_path / "3.png")  # of row 2 alone
    (out / "00003.safetensors").write_bytes(b"half of a fi")
    shards(rows, out, shard=2)
    after = {path.name: path.stat().st_mtime_ns for path in out.glob("*.safetensors")}
    assert [name for name in sorted(before) if before[name] != after[name]] == [
        "00001.safetensors",
        "00003.safetensors",
    ]
    shards(rows, tmp_path / "whole", shard=2)
    for path in out.iterdir():
        assert path.read_bytes() == (tmp_path / "whole" / path.name).read_bytes()


def test_a_plan_without_a_shard_may_be_changed(rows: Path, tmp_path: Path) -> None:
    manifest = Manifest(fingerprint="x", source="y", size=(5, 5), examples=1, shard_examples=1)
    (tmp_path / "out").mkdir()
    manifest.save(tmp_path / "out/shards.json")
    assert shards(rows, tmp_path / "out").size == 7


def test_a_corrupt_shard_is_a_clear_error(rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shards(rows, out)
    (out / "00001.safetensors").write_bytes(b"nothing of that kind")
    tensors = load_file(out / "00002.safetensors")
    save_file({**tensors, "row_ends": tensors["row_ends"] - 1}, out / "00002.safetensors")
    made = ShardSource(out)
    assert made.example(2).tasks
    for index, name in ((3, "00001"), (6, "00002")):
        with pytest.raises(DataError, match=rf"{name}\.safetensors is corrupt: .*delete it and run dimoo encode again"):
            made.example(index)
    with pytest.raises(DataError, match="there are no shards"):
        ShardSource(tmp_path)


def test_what_shards_cannot_hold_is_refused(tmp_path: Path) -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    task = TaskExample(task="inpaint", image=image, given=np.ones((32, 32), bool))

    class One:
        size = 1

        def example(self, index: int) -> Example:
            return Example(tasks=(task,))

        def file_sizes(self, index: int) -> list[int]:
            return []

    manifest = Manifest(fingerprint=TOKENIZER.fingerprint, source="", size=(32, 32), examples=1, shard_examples=1)
    with pytest.raises(DataError, match="knows a part of its answer"):
        write_shards(One(), TOKENIZER, tmp_path / "out", manifest=manifest)


def make_prompts() -> Prompts:
    text = TextTokenizer.load(MINI / TEXT)
    ids = {name: text.id_of(token) for name, token in SPECIAL_TOKENS.items()}
    opening, closing = ids.pop("image_start"), ids.pop("image_end")
    vocabulary = Vocabulary(text_size=text.size, **ids).with_modality("image", CODES, opening=opening, closing=closing)
    families = {entry.family for entry in STANDARD.values()} | {EDITING, TEXT_TO_IMAGE, UNDERSTANDING}
    return Prompts(text=text, vocabulary=vocabulary, template=PromptTemplate(systems=dict.fromkeys(families, "do")))


def builder(tokenizer: ImageTokenizer = TOKENIZER) -> DocumentBuilder:
    return DocumentBuilder(prompts=make_prompts(), image_tokenizer=tokenizer, mixture=MixtureConfig())


def test_training_reads_the_same_documents(rows: Path, tmp_path: Path) -> None:
    captioned = [row for row in ROWS if row != {"image": "1.png"}]  # nothing is said of that one
    rows.write_text("".join(json.dumps(row) + "\n" for row in captioned), encoding="utf-8")
    shards(rows, tmp_path / "out")
    plain_config = JsonlSourceConfig(path=str(rows), size=64, held_out=1)
    stored_config = ShardSourceConfig(path=str(tmp_path / "out"), held_out=1)
    check = builder().check
    sources = [build_source(config, seed=3, examples=9, check=check) for config in (plain_config, stored_config)]
    documents = []
    for source in sources:
        examples = [source.example(index) for index in range(25)]
        documents.append(builder().build(examples, [generator(index) for index in range(25)]))
    assert len({tuple(document.ids.tolist()) for document in documents[0]}) > 6
    for first, second in zip(*documents, strict=True):
        assert torch.equal(first.ids, second.ids)
        assert torch.equal(first.group, second.group)
        assert first.targets == second.targets


def test_a_digest_changes_with_what_is_learnt_from_and_not_with_the_files_that_it_is_in(
    rows: Path, tmp_path: Path
) -> None:
    """Nor with a picture that is mended in its place."""

    def stored(name: str, *, size: tuple[int, int] | int = 64, **settings: Any) -> str | None:
        shards(rows, tmp_path / name, size=size, **settings)
        return digest_of(build_source(ShardSourceConfig(path=str(tmp_path / name)), seed=0, examples=1))

    def plain() -> str | None:
        return digest_of(build_source(JsonlSourceConfig(path=str(rows), size=64), seed=0, examples=1))

    before, first = plain(), stored("a")
    Image.new("RGB", (64, 64)).save(tmp_path / "3.png")
    assert plain() == before
    assert stored("b", shard=2) == first
    others = [stored("c", tokenizer=make_tokenizer(1)), stored("d", size=96)]
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS[1:]), encoding="utf-8")
    others.append(stored("e"))
    assert len({before, plain(), first, *others}) == 6
    assert digest_of(WorldSource(WorldConfig(), 0)) is None


def test_codes_of_another_tokenizer_are_refused(rows: Path, tmp_path: Path) -> None:
    made = shards(rows, tmp_path / "out")
    other = make_tokenizer(1)
    with pytest.raises(DataError, match=f"{TOKENIZER.fingerprint}, but this model's is {other.fingerprint}"):
        builder(other).build([made.example(0)], [generator(0)])


def test_rows_that_the_table_does_not_take_are_all_listed(rows: Path, tmp_path: Path) -> None:
    shards(rows, tmp_path / "out")
    few = {name: entry for name, entry in STANDARD.items() if name not in ("edit", "chat")}
    config = ShardSourceConfig(path=str(tmp_path / "out"))
    with pytest.raises(DataError, match="3 bad rows") as raised:
        build_source(config, seed=0, examples=1, check=replace(builder(), tasks=few).check)
    assert "out, example 1: an example with caption None and 0 questions has nothing" in str(raised.value)
    assert "out, example 2: this model has no task 'edit'" in str(raised.value)
    assert "out, example 4: this model has no task 'chat'" in str(raised.value)


def test_shards_are_looked_through_together_and_progress_is_told(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards(rows, tmp_path / "out")
    monkeypatch.setattr(checking, "TOGETHER", 4)
    meetings = [Barrier(4, timeout=20), Barrier(3, timeout=20)]  # an example that is looked at alone waits in vain
    seen, told = list[str](), list[tuple[int, int]]()

    def check(example: Example[Picture]) -> None:
        meetings[len(told)].wait()
        seen.append(str(example.caption))

    config = ShardSourceConfig(path=str(tmp_path / "out"))
    build_source(config, seed=0, examples=1, check=check, progress=lambda *done: told.append(done))
    assert told == [(4, 7), (7, 7)]
    assert sorted(seen) == sorted(str(ShardSource(tmp_path / "out").example(index).caption) for index in range(7))


def test_codes_are_decoded_to_be_shown_and_are_no_pixels(rows: Path, tmp_path: Path) -> None:
    made = shards(rows, tmp_path / "out")
    stored = made.example(2)
    shown = decoded(stored, TOKENIZER)
    code, picture = stored.tasks[0].image, shown.tasks[0].image
    assert isinstance(code, Codes)
    assert picture is not None
    wanted = TOKENIZER.decode(torch.from_numpy(code.codes).long()[None])[0].permute(1, 2, 0)
    assert np.abs(picture / 255 - wanted.numpy()).max() <= 0.5 / 255 + 1e-6
    assert (shown.tasks[0].words, shown.tasks[0].task) == ("make it red", "edit")
    assert decoded(shown, TOKENIZER).tasks[0].image is picture
    with pytest.raises(DataError, match="shards hold codes alone"):
        converted(stored, pixels_of)


def test_words_that_are_too_long_are_listed_when_a_source_is_opened(tmp_path: Path) -> None:
    """Of a folder, a file and shards; a message lists some, and counts the others."""
    for number in range(LISTED + 5):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number:02}.png")
        (tmp_path / f"{number:02}.txt").write_text("a cat " * (1 if number < 2 else 30))
    lines = [{"image": f"{n:02}.png", "caption": (tmp_path / f"{n:02}.txt").read_text()} for n in range(LISTED + 5)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    shards(tmp_path / "rows.jsonl", tmp_path / "out")
    settings = {"size": (16, 16), "path": str(tmp_path)}
    folder = FolderSourceConfig(**settings)  # type: ignore[arg-type]
    file = JsonlSourceConfig(**{**settings, "path": str(tmp_path / "rows.jsonl")})  # type: ignore[arg-type]
    places = {
        "02.png: ": folder,
        "rows.jsonl:3: ": file,
        "out, example 2: ": ShardSourceConfig(path=str(tmp_path / "out")),
    }
    for place, config in places.items():
        with pytest.raises(DataError, match=f"{LISTED + 3} bad rows") as raised:
            build_source(config, seed=0, examples=1, check=builder().check)
        _, first, *others = str(raised.value).splitlines()
        assert first.strip().startswith(f"{place}the answer takes ")
        assert first.endswith("mixture.caption_tokens")
        assert len(others) == LISTED
        assert others[-1].strip() == "and 3 more"
        if not isinstance(config, ShardSourceConfig):
            left = config.model_copy(update={"on_bad": "report"})
            source = build_source(left, seed=0, examples=1, check=builder().check)
            assert {source.example(index).caption.strip() for index in range(9)} == {"a cat"}  # type: ignore[union-attr]
