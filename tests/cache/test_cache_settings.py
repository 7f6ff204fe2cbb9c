"""Caches as settings: what they build, that they reach the run, and that records hold them."""

from __future__ import annotations

import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter, ValidationError
from tiny_checkpoint import tiny_model

from dimoo.cache import config as cfg
from dimoo.cache.blocks import BlockCache
from dimoo.cache.build import build_cache
from dimoo.cache.frozen import FrozenContext
from dimoo.cache.max_logit import MaxLogit, PaperMaxLogit, Timetable
from dimoo.cache.similarity import SimilarityCache
from dimoo.cache.stored import StoredCache
from dimoo.core.errors import ConfigError, RequestError
from dimoo.core.requests import (
    AskRequest,
    Box,
    GenerateRequest,
    InterleavedRequest,
    PictureAnswer,
    Request,
    RetouchRequest,
    TextAnswer,
)
from dimoo.denoise import BackboneDenoiser, Branches, Cache, MaskPredictor, NoCache
from dimoo.diffusion.canvas import Canvas
from dimoo.diffusion.sampler import Denoiser
from dimoo.presets.config import ImageSettings, TextSettings
from dimoo.tasks.dispatch import job_of
from dimoo.tasks.model import Dimoo
from dimoo.tasks.plans import image_plan
from dimoo.tasks.records.picture_files import read_record, save_picture
from dimoo.tasks.records.remake import remake
from dimoo.tasks.retouching import Retouching

WAITING = cfg.MaxLogitConfig(share=0.2, warmup=0.0, refresh=50)
OTHER = cfg.FrozenContextConfig(refresh=7)
BUILT: dict[type, tuple[Cache, dict[str, Any]]] = {
    cfg.NoCacheConfig: (NoCache(), {}),
    cfg.PaperMaxLogitConfig: (
        StoredCache(policy=PaperMaxLogit(share=0.1, timetable=Timetable(warmup=0.3, refresh=5))),
        {"share": 0.5, "warmup": 0.5, "refresh": 2, "max_bytes": 10**9},
    ),
    cfg.MaxLogitConfig: (
        StoredCache(policy=MaxLogit(share=0.1, timetable=Timetable(warmup=0.3, refresh=5))),
        {"share": 0.5, "warmup": 0.5, "refresh": 2, "fixed": True, "max_bytes": 10**9},
    ),
    cfg.BlockCacheConfig: (
        StoredCache(policy=BlockCache(scope="block")),
        {"scope": "suffix", "refresh": 2, "max_bytes": 10**9},
    ),
    cfg.FrozenContextConfig: (StoredCache(policy=FrozenContext(refresh=8)), {"refresh": 2, "max_bytes": 10**9}),
    cfg.SimilarityConfig: (
        SimilarityCache(share=0.25, prompt_refresh=25, answer_refresh=7),
        {"share": 0.5, "prompt_refresh": 2, "answer_refresh": 3, "max_bytes": 10**9},
    ),
}
"""What each kind builds by default, and another value of each of its fields."""


@pytest.mark.parametrize("kind", BUILT, ids=lambda kind: kind.__name__)
def test_every_field_changes_what_is_built(kind: type[Any]) -> None:
    usual, others = BUILT[kind]
    assert build_cache(kind()) == usual
    assert set(others) == set(kind.model_fields) - {"kind"}
    built = [usual, *(build_cache(kind(**{name: value})) for name, value in others.items())]
    assert all(one != two for index, one in enumerate(built) for two in built[:index])
    for name, value in others.items():
        assert f"{name}={value!r}" in repr(build_cache(kind(**{name: value})))  # and not another one's


@pytest.mark.parametrize("kind", BUILT, ids=lambda kind: kind.__name__)
def test_json_round_trip_by_tag(kind: type[Any]) -> None:
    adapter = TypeAdapter(cfg.CacheConfig)
    for config in (kind(), kind(**BUILT[kind][1])):
        assert adapter.validate_json(config.model_dump_json()) == config
        for settings in (ImageSettings(cache=config), TextSettings(cache=config)):
            assert type(settings).model_validate_json(settings.model_dump_json()) == settings


def test_the_table_lists_every_kind() -> None:
    assert set(BUILT) == set(typing.get_args(typing.get_args(cfg.CacheConfig)[0]))


@pytest.mark.parametrize(
    "text",
    [
        '{"kind": "mlcache"}',
        '{"kind": "none", "share": 0.1}',
        '{"kind": "ml_cache", "share": 0}',
        '{"kind": "ml_cache", "share": 1.1}',
        '{"kind": "ml_cache", "warmup": -0.1}',
        '{"kind": "max_logit", "refresh": 0}',
        '{"kind": "max_logit", "max_bytes": -1}',
        '{"kind": "block", "scope": "prefix"}',
        '{"kind": "block", "refresh": 0}',
        '{"kind": "frozen_context", "refresh": null}',
        '{"kind": "similarity", "prompt_refresh": 0}',
    ],
)
def test_unknown_kinds_keys_and_values_are_errors(text: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(cfg.CacheConfig).validate_json(text)


@pytest.fixture(scope="module")
def model() -> Dimoo:
    """Of weights so large that what is stored shows in pictures."""
    made = tiny_model()
    for parameter in made.backbone.parameters():  # type: ignore[attr-defined]
        if parameter.ndim == 2:
            parameter.data.mul_(8.0)
    return made


def drawn(**changes: Any) -> ImageSettings:
    return ImageSettings(**{"steps": 8, **changes})


def noise(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8))


GENERATE = GenerateRequest(prompt="a cat", height=48, width=48, seed=3)
ASK = AskRequest(images=(noise(),), question="what ?", tokens=6, seed=4)
BOTH = InterleavedRequest(
    parts=("draw it",), answer=(PictureAnswer(), TextAnswer(tokens=4)), family="text_to_image", seed=5
)


def cache_of(model: Dimoo, request: Request, image: Any, text: Any) -> Cache:
    return job_of(model.kit, request, image=image, text=text).cache


def test_settings_reach_the_job(model: Dimoo) -> None:
    image, text = ImageSettings(cache=WAITING), TextSettings(cache=OTHER)
    assert cache_of(model, GENERATE, image, text) == build_cache(WAITING)
    assert cache_of(model, ASK, image, text) == build_cache(OTHER)
    assert cache_of(model, GENERATE, ImageSettings(), text) == NoCache()
    assert cache_of(model, ASK, image, TextSettings()) == NoCache()
    retouch = RetouchRequest(image=noise(), marks=(Box(0, 0, 8, 8),), feather=2)  # a job that is carried on
    assert cache_of(model, retouch, image, text) == build_cache(WAITING)


def test_a_plan_brings_no_cache(model: Dimoo) -> None:
    plan = image_plan(ImageSettings(cache=WAITING))
    assert cache_of(model, GENERATE, plan, TextSettings(cache=OTHER)) == NoCache()
    assert cache_of(model, BOTH, plan, TextSettings(cache=OTHER)) == build_cache(OTHER)


def test_pictures_and_words_together_take_one_cache(model: Dimoo) -> None:
    no = cfg.NoCacheConfig()
    for image, text, built in ((WAITING, WAITING, WAITING), (WAITING, no, WAITING), (no, OTHER, OTHER), (no, no, no)):
        found = cache_of(model, BOTH, ImageSettings(cache=image), TextSettings(cache=text))
        assert found == build_cache(built)
    with pytest.raises(
        RequestError, match=r"name two caches.*FrozenContextConfig.*MaxLogitConfig.*or one of them none"
    ):
        model.run([BOTH], image=ImageSettings(cache=WAITING), text=TextSettings(cache=OTHER))


def test_a_cache_of_the_models_own_settings_is_taken(model: Dimoo) -> None:
    ours = Dimoo(
        model.config.model_copy(update={"image": drawn(cache=WAITING)}),
        backbone=model.backbone,
        text_tokenizer=model.prompts.text,
        image_tokenizer=model.kit.image_tokenizer,
    )
    assert same(ours.run([GENERATE])[0], model.run([GENERATE], image=drawn(cache=WAITING))[0])


@dataclass(frozen=True)
class Spy:
    """A cache of one's own: no cache, but it notes which rows it serves."""

    rows: list[int] = field(default_factory=list, compare=False)

    def denoiser(self, network: MaskPredictor, start: Canvas, requests: Mapping[int, Branches]) -> Denoiser:
        self.rows.extend(requests)
        return BackboneDenoiser(network, start, requests)

    def __len__(self) -> int:
        return 0  # false where it is asked whether it is there


def same(one: Image.Image, two: Image.Image) -> bool:
    return one.size == two.size and one.tobytes() == two.tobytes()


def test_a_cache_given_to_a_run_stands_in_for_all(model: Dimoo) -> None:
    spy = Spy()
    image, text = drawn(cache=WAITING), TextSettings(cache=OTHER)
    (picture, words) = model.run([GENERATE, ASK], image=image, text=text, cache=spy)
    assert spy.rows == [0, 1]
    plain = model.run([GENERATE, ASK], image=drawn())
    assert same(picture, plain[0])
    assert words == plain[1]
    cached = model.run([GENERATE, ASK], image=image, text=text)
    assert not same(picture, cached[0])
    assert same(cached[0], model.run([GENERATE], image=drawn(), cache=build_cache(WAITING))[0])


def test_only_pictures_by_settings_say_how_they_were_made(model: Dimoo) -> None:
    for cache in (Spy(), NoCache(), build_cache(WAITING)):
        assert "dimoo" not in model.run([GENERATE], image=drawn(), cache=cache)[0].info
    record = model.run([GENERATE], image=drawn(cache=WAITING))[0].info["dimoo"].record()
    assert record.image.cache == WAITING


def test_a_picture_that_a_cache_made_is_made_again(model: Dimoo, tmp_path: Path) -> None:
    made = model.run([GENERATE, BOTH], image=drawn(cache=WAITING))
    for index, picture in enumerate((made[0], made[1][0])):
        save_picture(picture, tmp_path / f"{index}.png")
        record = read_record(tmp_path / f"{index}.png")
        again = remake(model, record)
        assert same(again if index == 0 else again[0], picture)
        plain = remake(model, record.model_copy(update={"image": drawn()}))
        assert not same(plain if index == 0 else plain[0], picture)


def test_a_record_of_before_there_were_caches_has_none(model: Dimoo) -> None:
    record = model.run([GENERATE], image=drawn())[0].info["dimoo"].record()
    told = record.model_dump(mode="json")
    for settings in (told["image"], told["text"]):
        assert settings.pop("cache") == {"kind": "none"}
    assert type(record).model_validate_json(json.dumps(told)) == record


def test_retouching_keeps_to_the_cache(model: Dimoo) -> None:
    session = Retouching(model, noise())
    with pytest.raises(ConfigError, match="more than its bound of 0"):
        session.retouch(Box(0, 0, 8, 8), "a cat", settings=drawn(cache=cfg.FrozenContextConfig(max_bytes=0)))


def test_a_bound_is_checked_before_anything_is_made(model: Dimoo) -> None:
    asked: list[int] = []
    hook = model.backbone.register_forward_pre_hook(lambda module, inputs: asked.append(1))  # type: ignore[attr-defined]
    try:
        for kind in BUILT.keys() - {cfg.NoCacheConfig}:
            with pytest.raises(ConfigError, match=r"more than its bound of 1,000; raise max_bytes"):
                model.stream([GENERATE], image=drawn(cache=kind(max_bytes=1000)))
    finally:
        hook.remove()
    assert not asked
