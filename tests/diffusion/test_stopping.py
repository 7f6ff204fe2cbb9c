import torch

from dimoo.diffusion.progress import Progress
from dimoo.diffusion.stopping import AnyStop, NoStop, StopAtToken

END, MASK = 7, 0


def progress(masked, initial=(1, 1, 1, 1, 0)):
    flags = [torch.tensor(values, dtype=torch.bool) for values in (initial, masked)]
    return Progress.of(step=1, steps=4, initial=flags[0], masked=flags[1])


def stops(ids, masked, rule=StopAtToken(token=END)):  # noqa: B008 - frozen
    return rule(torch.tensor(ids), progress(masked))


def test_stops_once_the_token_ends_a_finished_beginning():
    assert stops([1, 2, END, MASK, END], [0, 0, 0, 1, 0])
    assert stops([END, MASK, MASK, MASK, END], [0, 1, 1, 1, 0])


def test_waits_for_masks_before_the_token():
    assert not stops([MASK, 2, END, MASK, END], [1, 0, 0, 1, 0])
    # Of two such tokens the first decides.
    assert stops([1, END, MASK, END, END], [0, 0, 1, 0, 0])


def test_given_tokens_do_not_count():
    assert not stops([1, 2, 3, 4, END], [0, 0, 0, 0, 0])
    assert not stops([1, 2, 3, MASK, END], [0, 0, 0, 1, 0])


def test_the_token_under_a_mask_does_not_count():
    """Where the token is the mask id itself, a masked position holds it without its being committed."""
    assert not stops([MASK, 2, 3, 4, 5], [1, 0, 0, 0, 0], StopAtToken(token=MASK))


def test_null_and_composite():
    done = [1, 2, END, MASK, END], [0, 0, 0, 1, 0]
    assert not stops(*done, NoStop())
    assert not stops(*done, AnyStop(rules=()))
    assert not stops(*done, AnyStop(rules=(NoStop(), StopAtToken(token=99))))
    assert stops(*done, AnyStop(rules=(NoStop(), StopAtToken(token=END))))


def test_what_the_host_knows_is_a_bool_and_the_rest_stays_on_the_device():
    done = [1, 2, END, MASK, END], [0, 0, 0, 1, 0]
    assert stops(*done, AnyStop(rules=(NoStop(), NoStop()))) is False
    for rule in (StopAtToken(token=END), AnyStop(rules=(NoStop(), StopAtToken(token=99), lambda ids, standing: True))):
        answer = stops(*done, rule)
        assert answer.dtype == torch.bool
        assert answer.shape == ()
        assert answer
