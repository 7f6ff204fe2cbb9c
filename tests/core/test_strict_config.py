import math
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError, model_validator
from typing_extensions import Self

from dimoo.cache.config import BlockCacheConfig, MaxLogitConfig
from dimoo.core.config import StrictConfig, override, parse
from dimoo.core.errors import ConfigError, DimooError
from dimoo.presets.config import ImageSettings


class Circle(StrictConfig):
    """Round."""

    kind: Literal["circle"] = "circle"
    radius: float = Field(gt=0)


class Square(StrictConfig):
    """Not round."""

    kind: Literal["square"] = "square"
    side: int = 1
    """Length of a side."""


class Inner(StrictConfig):
    """One level down."""

    lr: float = Field(default=1e-3, gt=0)
    note: str | None = None


class Outer(StrictConfig):
    """The whole."""

    name: str
    steps: int = Field(default=10, ge=1)
    flag: bool = False
    inner: Inner = Inner()
    shape: Annotated[Circle | Square, Field(discriminator="kind")] = Square()
    shapes: tuple[Annotated[Circle | Square, Field(discriminator="kind")], ...] = ()
    words: dict[str, str] = Field(default_factory=dict)
    size: tuple[int, int] = (64, 64)
    share: Annotated[float, Field(le=1)] | Inner | tuple[int, int] = 0.5

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.steps > 10**9:
            raise ValueError(f"steps {self.steps} take too long; set it to less")
        return self


BASE = Outer(name="base", shapes=(Square(side=2), Circle(radius=0.5)), words={"a": "x"})


@given(
    st.builds(
        Outer,
        name=st.text(),
        steps=st.integers(1, 10**9),
        flag=st.booleans(),
        inner=st.builds(Inner, lr=st.floats(1e-12, 1e12), note=st.none() | st.text()),
        shape=st.builds(Circle, radius=st.floats(1e-9, 1e9)) | st.builds(Square, side=st.integers()),
        words=st.dictionaries(st.text(), st.text(), max_size=3),
        size=st.tuples(st.integers(), st.integers()),
    )
)
def test_json_there_and_back(config):
    assert parse(Outer, config.model_dump(mode="json")) == config
    assert override(config, []) == config


def test_save_and_load(tmp_path):
    path = tmp_path / "config.json"
    BASE.save(path)
    assert Outer.load(path) == BASE
    assert path.read_text(encoding="utf-8").startswith('{\n  "name": "base"')


def test_files_that_are_no_config(tmp_path):
    path = tmp_path / "config.json"
    with pytest.raises(ConfigError, match=r"no config at .*config\.json"):
        Outer.load(path)
    for content, message in (
        (b'{"name": ', "is not valid JSON"),
        (b"\xff\xfe", "is not valid JSON"),
        (b"[1, 2]", r"Outer: \[1, 2\]: should be an object"),
        (b"{}", r"name: is missing; give it"),
        (b'{"name": "a", "size": [1]}', r"size\.1: is missing; give it"),
    ):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=message):
            Outer.load(path)


KNOWN = ", ".join(Outer.model_fields)
LONG = 10**9 + 1


@pytest.mark.parametrize(
    ("values", "lines"),
    [
        ({"name": "a", "stepz": 3}, [f"stepz: 3: there is no such setting; known: {KNOWN}"]),
        ({"name": "a", "inner": {"rate": 1}}, ["inner.rate: 1: there is no such setting; known: lr, note"]),
        ({"name": 3}, ["name: 3: should be a valid string"]),
        ({"name": "a", "steps": "3"}, ["steps: '3': should be a valid integer"]),
        ({"name": "a", "flag": 1}, ["flag: 1: should be a valid boolean"]),
        (
            {"name": "a", "steps": 0, "inner": {"lr": -1.0}},  # all at once
            ["steps: 0: should be greater than or equal to 1", "inner.lr: -1.0: should be greater than 0"],
        ),
        (
            {"name": "a", "shape": {"kind": "star"}},
            ["shape.kind: 'star': there is no such kind; choose from 'circle', 'square'"],
        ),
        ({"name": "a", "shape": {"side": 2}}, ["shape.kind: is missing; give it"]),
        ({"name": "a", "shape": {"kind": "circle"}}, ["shape.radius: is missing; give it"]),
        (
            {"name": "a", "shapes": [{"kind": "square"}, {"kind": "square", "radius": 2}]},
            ["shapes.1.radius: 2: there is no such setting; known: kind, side"],
        ),
        (
            {"name": "a", "share": 2.0},
            ["share: 2.0: should be less than or equal to 1, or should be an object, or should be a valid array"],
        ),
        ({"name": "a", "share": {"lr": 0.0}}, ["share.lr: 0.0: should be greater than 0"]),
        ({"name": "a", "share": [1, "b"]}, ["share.1: 'b': should be a valid integer"]),
        ({"name": "a", "steps": LONG}, [f"steps {LONG} take too long; set it to less"]),
        ({"name": ["a" * 99]}, [f"name: ['{'a' * 58}...: should be a valid string"]),
    ],
)
def test_every_problem_is_named_in_a_line_with_what_was_given_and_what_is_wanted(values, lines):
    with pytest.raises(ConfigError) as caught:
        parse(Outer, values)
    assert str(caught.value).splitlines() == lines


def test_configs_made_in_python_raise_the_same_and_parts_of_others_are_read_as_json_is():
    with pytest.raises(ConfigError, match=r"^shape\.radius: is missing; give it$"):
        Outer(name="a", shape={"kind": "circle"})
    with pytest.raises(ConfigError, match=r"^steps 1000000001 take too long; set it to less$"):
        Outer(name="a", steps=LONG)
    assert parse(Outer, {"name": "a", "share": [1, 2]}).share == (1, 2)  # a list, as JSON has no tuples


def test_an_integer_does_for_a_float():
    assert parse(Inner, {"lr": 1}).lr == 1.0


def test_instances_are_frozen_and_strict():
    with pytest.raises(ValidationError):
        BASE.steps = 3  # type: ignore[misc]
    with pytest.raises(ConfigError, match=r"^steps: '3': should be a valid integer$"):
        Outer(name="a", steps="3")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"^stepz: 3: there is no such setting; known: name, steps, flag, "):
        Outer(name="a", stepz=3)  # type: ignore[call-arg]


def test_docstrings_under_fields_are_their_descriptions():
    assert Square.model_fields["side"].description == "Length of a side."


@pytest.mark.parametrize(
    ("assignment", "path", "value"),
    [
        ("steps=20", ("steps",), 20),
        ("inner.lr=1e-4", ("inner", "lr"), 1e-4),
        ("inner.lr=2", ("inner", "lr"), 2.0),
        ("flag=true", ("flag",), True),
        ("inner.note=hello world", ("inner", "note"), "hello world"),
        ("inner.note=a=b", ("inner", "note"), "a=b"),
        ("inner.note=null", ("inner", "note"), None),
        (" inner.note = x ", ("inner", "note"), "x"),
        ('inner.note="12"', ("inner", "note"), "12"),
        ("size=[32, 48]", ("size",), (32, 48)),
        ("size.1=48", ("size",), (64, 48)),
        ('shape={"kind":"circle","radius":2}', ("shape",), Circle(radius=2.0)),
        ("shape.side=7", ("shape",), Square(side=7)),
        ("shapes.1.radius=3", ("shapes",), (Square(side=2), Circle(radius=3.0))),
        ('shapes.0={"kind":"circle","radius":2}', ("shapes",), (Circle(radius=2.0), Circle(radius=0.5))),
        ("shapes=[]", ("shapes",), ()),
        ("words.a=y", ("words",), {"a": "y"}),
        ('words={"b":"z"}', ("words",), {"b": "z"}),
        ("name=", ("name",), ""),
    ],
)
def test_overrides(assignment, path, value):
    changed = override(BASE, [assignment])
    node = changed
    for key in path:
        node = getattr(node, key)
    assert node == value
    # ... and nothing else.
    dumped, before = changed.model_dump(), BASE.model_dump()
    assert {key for key in dumped if dumped[key] != before[key]} <= {path[0]}


def test_the_given_config_is_untouched_and_later_overrides_win():
    before = BASE.model_dump()
    assert override(BASE, ["steps=2", "steps=3", "inner.lr=1"]).steps == 3
    assert BASE.model_dump() == before


def test_a_union_member_is_changed_in_one_go_or_key_by_key():
    assert override(BASE, ['shape={"kind":"circle","radius":1}', "shape.radius=4"]).shape == Circle(radius=4.0)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("steps", "'steps' is not of the form a.b=value"),
        ("=3", "not of the form"),
        ("stepz=3", "'stepz': there is no 'stepz' here; known: name, steps, flag"),
        ("inner.rate=3", "there is no 'rate' here; known: lr, note"),
        ("iner.lr=3", "there is no 'iner' here"),
        ("inner.lr.x=3", "there is no 'x' here; known: none"),
        ("inner.note.x=3", "there is no 'x' here; known: none"),
        ("shapes.2.side=3", r"there is no '2' here; known: 0\.\.1"),
        ("shapes.-1.side=3", r"there is no '-1' here"),
        ("shape.radius=3", "there is no 'radius' here; known: kind, side"),
        ("words.b=y", "there is no 'b' here; known: a"),
        ("steps=0", "^steps: 0: should be greater than or equal to 1$"),
        ("steps=many", "^steps: 'many': should be a valid integer"),
        ("shape.kind=circle", r"^shape\.radius: is missing; give it$"),
        ("shape.kind=star", "'star'"),
        ("inner=3", "inner: "),
        ("size=[1]", r"size\.1: is missing"),
        ("inner.lr=NaN", r"inner\.lr: "),
    ],
)
def test_bad_overrides(assignment, message):
    with pytest.raises(ConfigError, match=message):
        override(BASE, [assignment])


def test_infinity_is_no_number_to_save():
    """JSON has none: it would be read back as null."""
    for value in (math.inf, math.nan):
        with pytest.raises(ConfigError, match=r"^lr: (inf|nan): should be a finite number$"):
            Inner(lr=value)
    with pytest.raises(ConfigError, match="finite"):
        override(BASE, ["inner.lr=Infinity"])


def test_config_errors_are_dimoo_errors_and_value_errors():
    assert issubclass(ConfigError, DimooError)
    assert issubclass(ConfigError, ValueError)


def test_a_number_is_text_where_text_is_wanted() -> None:
    from recipes import registry

    changed = override(registry.get("world_base"), ["run.name=2024", "run.steps=7"])
    assert (changed.run.name, changed.run.steps) == ("2024", 7)
    for bad in ("run.seed=-1", "optimizer.betas=[2,3]", "run.steps=many"):
        with pytest.raises(ConfigError, match=bad.partition("=")[0].split(".")[0]):
            override(registry.get("world_base"), [bad])


def test_override_takes_another_kind_with_its_defaults():
    settings = ImageSettings(cache=MaxLogitConfig(share=0.5))
    chosen = override(settings, ["cache.kind=block", "cache.scope=masked"]).cache
    assert chosen == BlockCacheConfig(scope="masked")
    assert override(settings, ["cache.kind=max_logit"]).cache.share == 0.5  # it is of that kind
    assert override(settings, ["cache.scope=masked", "cache.kind=block"]).cache == chosen  # in any order
    with pytest.raises(ConfigError, match=r"^cache\.scop: 'masked': there is no such setting; known: kind, .*scope"):
        override(settings, ["cache.kind=block", "cache.scop=masked"])
    with pytest.raises(ConfigError, match="'warp'"):
        override(settings, ["cache.kind=warp"])
