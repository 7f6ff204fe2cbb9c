import torch
from hypothesis import given
from hypothesis import strategies as st

from dimoo.core.rng import derive_seed, generator

NAMES = st.lists(st.text(alphabet="ab/\\1", max_size=4), max_size=3)


def draw(*path):
    return torch.rand(4, generator=generator(*path)).tolist()


def test_a_path_is_the_same_stream_at_every_call():
    assert draw(3, "train", 0, "noise") == draw(3, "train", 0, "noise")
    state = torch.random.get_rng_state()
    draw(0, "a")
    assert torch.equal(torch.random.get_rng_state(), state)  # the global generator is not touched


def test_streams_of_different_paths_differ():
    paths = [(0,), (1,), (0, "a"), (0, "b"), (0, "a", "b"), (0, "b", "a"), (0, "a", 0), (0, "a", 1), (1, "a"), (-1,)]
    assert len({tuple(draw(*path)) for path in paths}) == len(paths)


@given(st.integers(), NAMES, st.integers(), NAMES)
def test_only_equal_paths_have_equal_seeds(seed, names, other_seed, others):
    same = (seed, names) == (other_seed, others)
    assert (derive_seed(seed, *names) == derive_seed(other_seed, *others)) == same
    assert 0 <= derive_seed(seed, *names) < 2**63


def test_a_slash_in_a_name_is_no_border():
    seeds = {derive_seed(0, *names) for names in (["a/b"], ["a", "b"], ["a\\", "b"], ["a\\/b"], ["a/", "b"])}
    assert len(seeds) == 5


def test_seeds_are_those_of_every_machine_and_process():
    assert derive_seed(0) == 4761921975702974394
    assert derive_seed(0, "sample") == 5235576165661030330
    assert derive_seed(7, "train", 3) == 7137631672708323211


def test_neighbouring_seeds_are_uncorrelated():
    values = torch.stack([torch.rand(2000, generator=generator(seed, "x")) for seed in range(4)])
    correlation = torch.corrcoef(values) - torch.eye(4)
    assert float(correlation.abs().max()) < 0.1
