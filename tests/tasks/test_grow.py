"""From a language model to a multimodal one."""

from __future__ import annotations

import pytest
import torch
from llada_like import END, MASK, UNUSED, llada_config, llada_like
from task_cases import all_equal, box, equal, picture
from tokenizers import AddedToken, Tokenizer, models

import dimoo
from dimoo.backbone.build import build_backbone
from dimoo.backbone.config import BackboneConfig
from dimoo.backbone.init import initialise
from dimoo.backbone.layout import PackedLayout
from dimoo.core.rng import generator
from dimoo.presets.config import ModelConfig
from dimoo.presets.families import TEXT_TO_IMAGE, UNDERSTANDING
from dimoo.tasks.model import Dimoo
from dimoo.tokenizers.template import PromptTemplate
from dimoo.tokenizers.text import TextTokenizer
from dimoo.tokenizers.vocabulary import Vocabulary

TEMPLATE = PromptTemplate(systems={TEXT_TO_IMAGE: "draw", UNDERSTANDING: "answer"}, max_prompt_tokens=64)
ADDED = [
    *("<IMAGE>", "</IMAGE>", "<uncondition>", "<system>", "</system>", "<user>", "</user>"),
    *("<end_of_line>", "<answer>", "</answer>"),
]


@pytest.fixture(scope="module")
def talker():
    return llada_like()


@pytest.fixture(scope="module")
def images(model):
    return model.kit.image_tokenizer


@pytest.fixture(scope="module")
def grown(talker, images):
    return dimoo.grow(talker, images, name="grown", template=TEMPLATE)


def test_new_ids_follow_the_old_and_codes_follow_them(talker, grown, images):
    before, text, vocabulary = talker.prompts.text, grown.prompts.text, grown.config.vocabulary
    first = before.size
    assert {token: text.id_of(token) for token in ADDED} == {token: first + i for i, token in enumerate(ADDED)}
    assert vocabulary.columns("image") == (first + len(ADDED), first + len(ADDED) + images.codebook_size)
    assert vocabulary.text_size == text.size == first + len(ADDED)
    assert vocabulary.specials == {
        **talker.config.vocabulary.specials,
        "end_of_line": first + 7,
        "unconditional": first + 2,
        "answer_start": first + 8,
        "answer_end": first + 9,
        "image_start": first,
        "image_end": first + 1,
    }


def test_the_ids_of_llada_become_those_of_lumina():
    """126,349 ids in 126,464 rows: `<IMAGE>`, `</IMAGE>`, `<uncondition>` land on 126,349 to 126,351."""
    tokenizer = Tokenizer(models.WordLevel({f"w{index}": index for index in range(126_347)}, unk_token="w0"))
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in (MASK, END)])
    text = TextTokenizer(tokenizer)
    assert text.size == 126_349
    shape = BackboneConfig(d_model=2, layers=1, heads=1, kv_heads=1, mlp_hidden=1, vocab_size=126_464)
    end = text.id_of(END)
    config = ModelConfig(
        name="llada",
        backbone=shape,
        vocabulary=Vocabulary(text_size=126_464, mask=text.id_of(MASK), pad=end, end_of_text=end),
        template=PromptTemplate(systems={}),
    )
    language = Dimoo(config, backbone=initialise(build_backbone(shape), generator(0)), text_tokenizer=text)

    class Amused:
        modality, codebook_size, codebooks, downsampling, fingerprint = "image", 8192, 1, (16, 16), "amused"

    made = dimoo.grow(language, Amused(), name="lumina", template=TEMPLATE)
    vocabulary = made.config.vocabulary
    assert (vocabulary.modality("image").opening, vocabulary.modality("image").closing) == (126_349, 126_350)
    assert vocabulary.unconditional == 126_351
    assert vocabulary.columns("image")[0] == max(vocabulary.specials.values()) + 1 == 126_349 + len(ADDED)
    assert made.backbone.vocab_size == made.config.backbone.vocab_size == 126_349 + len(ADDED) + 8192
    assert torch.equal(made.backbone.embedding.weight[:126_349], language.backbone.embedding.weight[:126_349])
    assert not torch.equal(
        made.backbone.embedding.weight[126_349:126_464], language.backbone.embedding.weight[126_349:]
    )


def test_used_rows_are_kept_and_all_others_drawn_anew(talker, grown):
    used = talker.prompts.text.size
    assert grown.backbone.vocab_size == grown.config.backbone.vocab_size == grown.config.vocabulary.size
    for table in ("embedding", "unembedding"):
        old, new = (getattr(model.backbone, table).weight for model in (talker, grown))
        assert torch.equal(new[:used], old[:used])
        assert (new[used : used + UNUSED] != old[used:]).all()
    tokens = torch.arange(9)
    with torch.no_grad():
        old, new = (m.backbone.head(m.backbone(tokens, PackedLayout.of([9]))) for m in (talker, grown))
    torch.testing.assert_close(new[:, :used], old[:, :used], atol=1e-5, rtol=1e-5)


def test_the_given_model_is_untouched(images):
    talker = llada_like()
    config, text = talker.config, talker.prompts.text.fingerprint
    weights = {name: tensor.clone() for name, tensor in talker.backbone.state_dict().items()}
    grown = dimoo.grow(talker, images, name="grown", template=TEMPLATE)
    with torch.no_grad():
        for parameter in grown.backbone.parameters():
            parameter.zero_()
    assert talker.config == config
    assert talker.config.vocabulary.modalities == ()
    assert talker.prompts.text.fingerprint == text
    assert talker.kit.image_tokenizer is None
    assert all(torch.equal(tensor, weights[name]) for name, tensor in talker.backbone.state_dict().items())


def test_the_config_says_what_it_is_made_of(talker, grown, images):
    config = grown.config
    assert (config.name, config.template) == ("grown", TEMPLATE)
    assert config.text_fingerprint == grown.prompts.text.fingerprint != talker.prompts.text.fingerprint
    assert config.image_fingerprint == images.fingerprint
    kept = ("chat", "image", "text", "image_size", "answer_tokens", "caption_tokens")
    assert all(getattr(config, field) == getattr(talker.config, field) for field in kept)


def test_it_does_every_task_and_still_chats(grown):
    start = grown.config.vocabulary.columns("image")[0]
    stream = grown.stream([dimoo.GenerateRequest(prompt="hello", height=16, width=24)])
    (made,) = stream.results()
    assert made.size == (24, 16)
    codes = stream._canvas.ids[2:-2].view(2, 4)[:, :3]
    assert int(codes.min()) >= start
    before = picture(16, 16)
    after = grown.inpaint(before, box(16, 16, (0, 0, 8, 16)), "hello")
    assert after.crop((8, 0, 16, 16)).tobytes() == before.crop((8, 0, 16, 16)).tobytes()
    assert isinstance(grown.ask(before, "what is it", tokens=3), str)
    context = grown.kit.chat.context([dimoo.Message(role="user", content="hello")])
    assert context.ids.max() < grown.prompts.text.id_of("<IMAGE>")
    assert isinstance(grown.chat("hello", tokens=3), str)


def test_a_user_cannot_write_the_new_tags(grown):
    text = grown.prompts.text
    ids = text.encode(text.defuse("".join(ADDED)))
    assert max(ids) < text.id_of("<IMAGE>")


def test_the_seed_names_the_draws(talker, images, grown):
    again, other = (dimoo.grow(talker, images, name="grown", template=TEMPLATE, seed=seed) for seed in (0, 1))
    tables = [model.backbone.embedding.weight for model in (grown, again, other)]
    assert torch.equal(tables[0], tables[1])
    assert not torch.equal(tables[0], tables[2])


def test_it_is_saved_and_loaded(grown, talker, tmp_path):
    grown.save(tmp_path / "grown")
    loaded = dimoo.load(tmp_path / "grown")
    assert loaded.config == grown.config
    requests = [
        dimoo.GenerateRequest(prompt="hello", height=16, width=16, seed=3),
        dimoo.ChatRequest(messages=(dimoo.Message(role="user", content="what is your name"),)),
    ]
    assert all_equal(loaded.run(requests), grown.run(requests))
    talker.save(tmp_path / "talker")
    words = dimoo.load(tmp_path / "talker")
    assert words.config == talker.config
    assert words.kit.image_tokenizer is None
    assert equal(words.chat("hello"), talker.chat("hello"))


def test_tags_that_the_tokenizer_has_keep_their_ids(talker, images):
    text = talker.prompts.text.with_tokens(["</answer>", "<IMAGE>"])
    backbone = talker.backbone
    config = llada_config(text)
    config = config.model_copy(
        update={
            "backbone": config.backbone.model_copy(update={"vocab_size": backbone.vocab_size}),
            "vocabulary": config.vocabulary.model_copy(update={"text_size": backbone.vocab_size}),
        }
    )
    vocabulary = dimoo.grow(
        Dimoo(config, backbone=backbone, text_tokenizer=text), images, name="grown", template=TEMPLATE
    ).config.vocabulary
    first = talker.prompts.text.size
    assert (vocabulary.answer_end, vocabulary.modality("image").opening) == (first, first + 1)
    assert vocabulary.modality("image").closing == first + 2
    assert vocabulary.columns("image")[0] == first + len(ADDED)


def test_what_cannot_grow_is_named(talker, grown, images):
    with pytest.raises(dimoo.ConfigError, match="the model 'grown' knows image already; grow a text-only one"):
        dimoo.grow(grown, images, name="again", template=TEMPLATE)

    class Own:
        vocab_size, device = 400, torch.device("cpu")

    odd = Dimoo(talker.config, backbone=Own(), text_tokenizer=talker.prompts.text)
    with pytest.raises(dimoo.CheckpointError, match="do not know how to grow a backbone of type Own"):
        dimoo.grow(odd, images, name="grown", template=TEMPLATE)
    beyond = talker.config.vocabulary.model_copy(update={"mask": talker.prompts.text.size})
    config = talker.config.model_copy(update={"vocabulary": beyond})
    far = Dimoo(config, backbone=talker.backbone, text_tokenizer=talker.prompts.text)
    with pytest.raises(dimoo.CheckpointError, match=r"special ids .* but the text tokenizer's end at \d+"):
        dimoo.grow(far, images, name="grown", template=TEMPLATE)
