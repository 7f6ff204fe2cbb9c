"""The hub without the hub: its cache is made by hand, and its API is replaced where something is written."""

from __future__ import annotations

import json
import shutil
from fnmatch import fnmatch
from pathlib import Path

import huggingface_hub.constants
import pytest
from released import write_released
from tiny_checkpoint import save_tiny, tiny_model

import dimoo
from dimoo.core.errors import CheckpointError
from dimoo.weights import hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache with the tiny model as someone/tiny, and no way out."""
    folder = tmp_path / "cache"
    repository = folder / "models--someone--tiny"
    save_tiny(tmp_path / "tiny")
    shutil.copytree(tmp_path / "tiny", repository / "snapshots" / COMMIT)
    for name in ("main", "v1"):
        (repository / "refs" / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / "refs" / name).write_text(COMMIT, encoding="utf-8")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return folder


def test_a_cached_model_loads_offline_by_its_name(cache: Path) -> None:
    model = dimoo.load("someone/tiny")
    assert model.config == tiny_model().config
    assert hub.resolve("someone/tiny") == cache / "models--someone--tiny" / "snapshots" / COMMIT


@pytest.mark.parametrize("name", ["someone/tiny@v1", f"someone/tiny@{COMMIT}"])
def test_a_revision_can_stand_in_the_name(cache: Path, name: str) -> None:
    assert hub.resolve(name).name == COMMIT
    assert hub.resolve("someone/tiny", revision=name.partition("@")[2]).name == COMMIT


@pytest.mark.parametrize("name", ["someone/other", "someone/tiny@v2", "runs/typo"])
def test_what_is_neither_here_nor_there_is_named(cache: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match=rf"{name.partition('@')[0]}.*(HF_HUB_OFFLINE|revision 'v2')"):
        dimoo.load(name)


@pytest.mark.parametrize("name", ["no-slash", "a/b/c", "../up", "owner/na me"])
def test_what_cannot_be_a_name_is_never_asked_for(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def ask(*_: object, **__: object) -> str:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(hub, "snapshot_download", ask)
    with pytest.raises(CheckpointError, match="no checkpoint folder"):
        hub.resolve(name)


def test_a_folder_goes_before_the_hub(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "someone" / "tiny").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert hub.resolve("someone/tiny") == Path("someone/tiny")


def test_only_data_is_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: dict[str, object] = {}

    def fetch(name: str, **named: object) -> str:
        seen.update(named, name=name)
        return str(tmp_path)

    monkeypatch.setattr(hub, "snapshot_download", fetch)
    assert hub.resolve("someone/tiny@v1") == tmp_path
    assert seen["name"] == "someone/tiny"
    assert seen["revision"] == "v1"
    assert not [pattern for pattern in hub.DATA if pattern.endswith((".py", ".bin", ".pt", "*"))]
    assert seen["allow_patterns"] == list(hub.DATA)


def test_push_uploads_a_folder_that_loads_with_a_card_that_names_the_repository(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Api:
        made: tuple[str, bool]

        def create_repo(self, name: str, *, private: bool, exist_ok: bool) -> str:
            assert exist_ok
            Api.made = name, private
            return f"https://hub/{name}"

        def upload_folder(
            self, *, repo_id: str, folder_path: Path, commit_message: str, delete_patterns: list[str]
        ) -> None:
            """As the hub's: what the patterns match and the upload lacks is removed, the rest is laid over."""
            assert repo_id == "me/mine"
            assert commit_message
            for path in [path for path in there.rglob("*") if path.is_file()]:
                if any(fnmatch(path.relative_to(there).as_posix(), pattern) for pattern in delete_patterns):
                    path.unlink()
            shutil.copytree(folder_path, there, dirs_exist_ok=True)

    there = tmp_path / "there"
    tiny_model().save(there, shard_size=1000)  # an older upload: in shards, and in the other layout
    (there / "thesis.md").write_text("mine", encoding="utf-8")
    monkeypatch.setattr(hub, "HfApi", Api)
    assert tiny_model().push("me/mine", layout="lumina") == "https://hub/me/mine"
    assert Api.made == ("me/mine", True)
    assert "d_model" in json.loads((tmp_path / "there" / "config.json").read_text(encoding="utf-8"))
    assert dimoo.load(there).config == tiny_model().config
    assert sorted(path.name for path in there.glob("*.safetensors*")) == ["model.safetensors"]
    assert (there / "thesis.md").exists()
    card = (tmp_path / "there" / "README.md").read_text(encoding="utf-8")
    assert 'dimoo.load("me/mine")' in card
    assert "library_name: dimoo" in card


def test_a_push_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    class Api:
        def create_repo(self, *_: object, **__: object) -> str:
            raise EOFError("the line went dead\nand more")  # whatever an HTTP library raises

    monkeypatch.setattr(hub, "HfApi", Api)
    with pytest.raises(CheckpointError, match="cannot push to 'me/mine': the line went dead; check the name"):
        tiny_model().push("me/mine")


def test_a_download_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> str:
        raise OSError("No space left on device")

    monkeypatch.setattr(hub, "snapshot_download", broken)
    with pytest.raises(CheckpointError, match="cannot get 'me/mine' from the hub: No space left on device"):
        dimoo.load("me/mine")


def test_revisions_are_of_repositories(cache: Path, tmp_path: Path) -> None:
    for path in ("mini", tmp_path / "tiny", str(tmp_path / "tiny")):
        with pytest.raises(CheckpointError, match="no repository on the hub: leave out revision='v1'"):
            dimoo.load(path, revision="v1")
    with pytest.raises(CheckpointError, match="two revisions"):
        dimoo.load("someone/tiny@v1", revision="main")


def test_a_path_called_mini_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert dimoo.load(tiny_model().save("mini")).config == tiny_model().config
    assert dimoo.load("mini").config.name != "tiny"
    shutil.rmtree("mini")
    Path("mini").write_text("a file of that name", encoding="utf-8")
    assert dimoo.load("mini").config.name == "mini"


def test_a_model_of_the_hub_has_the_name_of_its_repository(cache: Path, tmp_path: Path) -> None:
    snapshot = cache / "models--someone--LLaDA--tiny" / "snapshots" / COMMIT
    write_released(snapshot, text_only=True)
    assert hub.repository(snapshot) == "LLaDA--tiny"
    assert hub.repository(tmp_path) is None
    assert dimoo.load(snapshot).config.name == "LLaDA--tiny"


def test_an_image_tokenizer_is_fetched_without_the_model_around_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = write_released(tmp_path / "whole")

    def fetch(name: str, *, allow_patterns: list[str], **_: object) -> str:
        there = tmp_path / "fetched"
        for path in [path for path in whole.rglob("*") if path.is_file()]:
            own = path.relative_to(whole).as_posix()
            if any(fnmatch(own, pattern) for pattern in allow_patterns):
                (there / own).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, there / own)
        return str(there)

    monkeypatch.setattr(hub, "snapshot_download", fetch)
    tokenizer = dimoo.load_image_tokenizer("someone/whole")
    assert tokenizer.fingerprint == dimoo.load_image_tokenizer(whole).fingerprint
    assert not list((tmp_path / "fetched").glob("*.safetensors"))


def test_the_card_is_yaml_that_the_hub_reads_and_states_the_facts() -> None:
    from huggingface_hub import ModelCard

    from dimoo.weights.card import model_card
    from dimoo.weights.layout import Parts

    model = tiny_model()
    parts = Parts(config=model.config, text=model.prompts.text, image=model.kit.image_tokenizer)
    text = model_card(parts, parameters=1234567, dtype="bfloat16", layout="dimoo", where="x/y")
    card = ModelCard(text)
    assert card.data.library_name == "dimoo"
    assert card.data.pipeline_tag == "any-to-any"
    for fact in ("1,234,567 in bfloat16", "16 codes of 8x8 pixels", parts.text.fingerprint, "1 layers of width 16"):
        assert fact in text, fact
