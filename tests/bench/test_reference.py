"""The released loop, written plainly: the same tokens as ours where nothing is random."""

import pytest
from bench_cases import tiny

from dimoo.bench.measure import counting
from dimoo.bench.methods import Method
from dimoo.bench.reference import run_as_released
from dimoo.cache.config import PaperMaxLogitConfig
from dimoo.cache.max_logit import PaperMaxLogit, Timetable
from dimoo.core.errors import ConfigError
from dimoo.diffusion.config import GreedyConfig, GumbelConfidenceConfig, ProbabilityConfig
from dimoo.diffusion.order_config import RandomOrderConfig
from dimoo.tasks.engine import Stream

GREEDY = {"draw": GreedyConfig(), "confidence": GumbelConfidenceConfig(temperature=0)}
ANY = ("image", "edit", "text")


def plain(task, **more):
    changes = {"confidence": ProbabilityConfig(dtype="float64")} if task == "text" else {**GREEDY, **more}
    return Method(name="plain", tasks=(task,), said="", changes=changes)


def job(model, task, method, seed):
    return model.job(task, model.settings(method), seed)


@pytest.mark.parametrize("task", ANY)
def test_it_makes_our_tokens(task):
    model, made = tiny(), set()
    for seed in range(5):
        own = job(model, task, plain(task), seed)
        (ours,) = Stream.sampled(model.network, model.vocabulary, [own]).results()
        (theirs,) = run_as_released(model.network, model.vocabulary, [own])
        assert ours.tolist() == theirs.tolist()
        made.add(tuple(ours.tolist()))
    assert len(made) > 1


@pytest.mark.parametrize("task", ["image", "edit"])
def test_it_makes_our_tokens_with_its_cache(task):
    model = tiny()
    policy = PaperMaxLogit(share=0.3, timetable=Timetable(warmup=0.2, refresh=3))
    changed = 0
    for seed in range(5):
        cache = PaperMaxLogitConfig(share=0.3, warmup=0.2, refresh=3)
        own = job(model, task, plain(task, cache=cache), seed)
        (ours,) = Stream.sampled(model.network, model.vocabulary, [own]).results()
        (theirs,) = run_as_released(model.network, model.vocabulary, [own], policy)
        assert ours.tolist() == theirs.tolist()
        (exact,) = run_as_released(model.network, model.vocabulary, [own])
        changed += exact.tolist() != theirs.tolist()
    assert changed  # the cache was at work


@pytest.mark.parametrize(("task", "branches"), [("image", 2), ("edit", 3), ("text", 1)])
def test_it_spends_what_the_release_spends(task, branches):
    model = tiny()
    own = job(model, task, plain(task), 0)
    seen = []
    head = model.network.head

    def watched(rows, columns=None):
        seen.append((len(rows), columns))
        return head(rows, columns)

    model.network.head = watched
    with counting(model.network) as work:
        run_as_released(model.network, model.vocabulary, [own])
    steps = 8
    lengths = {name: len(context) + len(own.problem.answer) for name, context in own.problem.branches.items()}
    assert work.passes == steps * branches
    assert work.tokens == steps * sum(lengths.values())
    assert sorted(seen) == sorted([(length, None) for length in lengths.values()] * steps)


def test_other_orders_are_refused():
    model = tiny()
    method = Method(name="random", tasks=("image",), said="", changes={"order": RandomOrderConfig()})
    with pytest.raises(ConfigError, match="no order"):
        run_as_released(model.network, model.vocabulary, [job(model, "image", method, 0)])
