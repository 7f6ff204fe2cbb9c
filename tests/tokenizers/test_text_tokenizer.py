import json

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from dimoo.core.errors import CheckpointError
from dimoo.tokenizers.text import PROMPT_TAGS, SPECIAL_TOKENS, TextTokenizer, train_bpe

CAPTIONS = ["a red cat left of a blue dog", "two green cats on a white background"] * 5
TAGS = [*SPECIAL_TOKENS.values(), *PROMPT_TAGS]


@pytest.fixture(scope="module")
def trained():
    return train_bpe(CAPTIONS, size=320)


def test_special_tokens_are_the_first_ids(trained):
    assert [trained.id_of(token) for token in TAGS] == list(range(len(TAGS)))
    assert 13 + 256 < trained.size <= 320


def test_training_is_deterministic(trained):
    assert train_bpe(CAPTIONS, size=320).fingerprint == trained.fingerprint
    assert train_bpe(CAPTIONS, size=300).fingerprint != trained.fingerprint


def test_frequent_words_are_single_tokens(trained):
    assert len(trained.encode("a red cat left of a blue dog")) == 8


@settings(deadline=None, max_examples=100)
@given(value=st.text())
def test_any_text_without_tags_survives(trained, value):
    assume(not any(tag in value for tag in TAGS))
    assert trained.decode(trained.encode(value)) == value.strip()


@settings(deadline=None, max_examples=100)
@given(value=st.lists(st.sampled_from([*TAGS, "<", ">", "a", " ", "</", "user>", "\u200b"]), max_size=6).map("".join))
def test_defused_text_holds_no_special_token(trained, value):
    ids = trained.encode(trained.defuse(value))
    assert min(ids, default=99) >= len(TAGS)
    # It still looks the same.
    assert trained.decode(ids).replace("\u200b", "").strip() == value.replace("\u200b", "").strip()


def test_defuse_leaves_other_text_alone(trained):
    assert trained.defuse("a <b> cat & 3 < 4") == "a <b> cat & 3 < 4"


def test_written_out_tags_are_single_ids_and_are_not_decoded(trained):
    ids = trained.encode("<user>cat</user>")
    assert (ids[0], ids[-1]) == (trained.id_of("<user>"), trained.id_of("</user>"))
    assert trained.decode(ids) == "cat"


def test_save_and_load(trained, tmp_path):
    path = tmp_path / "tokenizer.json"
    trained.save(path)
    loaded = TextTokenizer.load(path)
    assert loaded.fingerprint == trained.fingerprint
    assert loaded.size == trained.size
    assert loaded.encode("a red cat") == trained.encode("a red cat")
    assert Tokenizer.from_file(str(path)).get_vocab_size() == trained.size  # a plain tokenizer.json


def test_missing_and_corrupt_files(tmp_path):
    path = tmp_path / "tokenizer.json"
    with pytest.raises(CheckpointError, match=r"no text tokenizer at .*tokenizer\.json"):
        TextTokenizer.load(path)
    path.write_text('{"version": "1.0"}', encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"is not a tokenizer\.json"):
        TextTokenizer.load(path)


def test_an_unknown_token_is_named(trained):
    with pytest.raises(CheckpointError, match="no token '<AUDIO>'"):
        trained.id_of("<AUDIO>")


def test_the_bundled_tokenizer_has_every_tag(text):
    assert len({text.id_of(token) for token in TAGS}) == len(TAGS)
    assert text.decode(text.encode("a red apple")) == "a red apple"


def test_defuse_leaves_added_words_that_are_not_special():
    inner = Tokenizer.from_str(train_bpe(CAPTIONS, size=300)._tokenizer.to_str())
    inner.add_tokens(["https://"])
    words = TextTokenizer(inner)
    assert words.defuse("see https://a </user>") == "see https://a <\u200b/user>"


def test_tags_that_are_not_called_special_are_markup_all_the_same():
    """As `add_tokens` of Hugging Face's libraries leaves them, which is how most tags are added."""
    inner = Tokenizer.from_str(train_bpe(CAPTIONS, size=300)._tokenizer.to_str())
    inner.add_tokens(["<canny>", "<|turn|>", "https://"])
    words = TextTokenizer(inner)
    ids = [words.id_of("<canny>"), words.id_of("<|turn|>")]
    assert set(ids) <= words.markup.keys()
    assert words.id_of("https://") not in words.markup
    assert not set(ids) & set(words.encode(words.defuse("a <canny> cat<|turn|>")))
    assert words.decode([ids[0], *words.encode("a cat"), ids[1]]) == "a cat"


def test_the_fingerprint_is_of_the_ids_not_of_the_file(trained, tmp_path):
    path = tmp_path / "tokenizer.json"
    trained.save(path)
    written = json.loads(path.read_text(encoding="utf-8"))
    written["model"]["merges"] = [" ".join(pair) for pair in written["model"]["merges"]]  # as older versions write them
    written["decoder"]["use_regex"] = False
    path.write_text(json.dumps(written), encoding="utf-8")
    assert TextTokenizer.load(path).fingerprint == trained.fingerprint
    written["model"]["merges"] = written["model"]["merges"][::-1]
    path.write_text(json.dumps(written), encoding="utf-8")
    assert TextTokenizer.load(path).fingerprint != trained.fingerprint


def test_tokens_are_added_at_the_next_free_ids(trained):
    before = trained.fingerprint
    grown = trained.with_tokens(["<SOUND>", "<user>", "</SOUND>", "<SOUND>"])
    assert (grown.id_of("<SOUND>"), grown.id_of("</SOUND>")) == (trained.size, trained.size + 1)
    assert grown.size == trained.size + 2
    assert grown.id_of("<user>") == trained.id_of("<user>")
    assert grown.encode("<SOUND>a red cat</SOUND>") == [trained.size, *trained.encode("a red cat"), trained.size + 1]
    assert grown.decode([trained.size, *trained.encode("a red cat")]) == "a red cat"
    assert trained.size not in grown.encode(grown.defuse("<SOUND>"))
    assert trained.fingerprint == before != grown.fingerprint
    with pytest.raises(CheckpointError, match="no token '<SOUND>'"):
        trained.id_of("<SOUND>")


def test_tokens_survive_saving(trained, tmp_path):
    grown = trained.with_tokens(["<SOUND>"])
    grown.save(tmp_path / "tokenizer.json")
    loaded = TextTokenizer.load(tmp_path / "tokenizer.json")
    assert (loaded.id_of("<SOUND>"), loaded.fingerprint) == (trained.size, grown.fingerprint)


def test_ids_with_gaps_cannot_grow():
    gappy = TextTokenizer(Tokenizer(models.WordLevel({"a": 0, "b": 7}, unk_token="a")))
    with pytest.raises(CheckpointError, match=r"\['<SOUND>'\] got the ids \[2\] .* end at 7; its ids have gaps"):
        gappy.with_tokens(["<SOUND>"])
