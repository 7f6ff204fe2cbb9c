import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dimoo.core.errors import DataError
from dimoo.tokenizers.document import GIVEN, Document, Target, join
from dimoo.tokenizers.packing import first_fit, pack

KINDS = st.sampled_from(["given", "image", "text", "padding"])


@st.composite
def documents(draw):
    """Documents of several stretches; ids count on, so that every token is known again."""
    made, count = [], 0
    for stretches in draw(
        st.lists(st.lists(st.tuples(KINDS, st.integers(1, 4)), min_size=1, max_size=4), min_size=1, max_size=5)
    ):
        parts = []
        for kind, length in stretches:
            ids = range(count, count + length)
            parts.append(
                Document.given(ids)
                if kind == "given"
                else Document.target(ids, Target(modality="any", kind=kind, columns=(0, 9)))
            )
            count += length
        made.append(join(parts))
    return made


def labels(document):
    """What every token is, by its id."""
    return {
        token: None if group == GIVEN else document.targets[group].kind
        for token, group in zip(document.ids.tolist(), document.group.tolist(), strict=True)
    }


@settings(deadline=None, max_examples=60)
@given(documents())
def test_a_pack_holds_every_token_once_with_its_own_target(docs):
    batch = pack(docs)
    wanted = {token: kind for document in docs for token, kind in labels(document).items()}
    assert labels(batch) == wanted
    assert len(batch.ids) == sum(len(document) for document in docs)
    assert batch.lengths == tuple(sorted(len(document) for document in docs))
    stretches = torch.split(batch.ids, list(batch.lengths))
    assert sorted(part.tolist() for part in stretches) == sorted(document.ids.tolist() for document in docs)


@settings(deadline=None, max_examples=60)
@given(documents())
def test_groups_of_different_documents_stay_apart(docs):
    batch = pack(docs)
    assert len(batch.targets) == sum(len(document.targets) for document in docs)
    assert batch.sizes().tolist() == [int((batch.group == index).sum()) for index in range(len(batch.targets))]
    owner = torch.repeat_interleave(torch.arange(len(docs)), torch.tensor(batch.lengths))
    for index in range(len(batch.targets)):
        assert len(owner[batch.group == index].unique()) == 1


def test_join_by_hand():
    text = Target(modality="text", kind="text", columns=(0, 9))
    image = Target(modality="image", kind="image", columns=(9, 20))
    first = Document.target([1, 2], text)
    second = join([Document.given([3]), Document.target([4], image)])
    whole = join([first, second, first])
    assert whole.ids.tolist() == [1, 2, 3, 4, 1, 2]
    assert whole.group.tolist() == [0, 0, GIVEN, 1, 2, 2]
    assert whole.targets == (text, image, text)


def test_documents_of_one_length_stand_together_in_their_order():
    docs = [Document.given([1, 1]), Document.given([2]), Document.given([3, 3]), Document.given([4])]
    batch = pack(docs)
    assert batch.ids.tolist() == [2, 4, 1, 1, 3, 3]
    assert batch.lengths == (1, 1, 2, 2)
    assert [document.ids[0] for document in docs] == [1, 2, 3, 4]  # the list is left as it was


def test_a_batch_on_another_device_is_the_same():
    batch = pack([Document.target([1, 2], Target(modality="text", kind="text", columns=(0, 9)))])
    moved = batch.to("cpu")
    assert torch.equal(moved.ids, batch.ids)
    assert (moved.lengths, moved.targets) == (batch.lengths, batch.targets)


def test_an_empty_pack_is_refused():
    with pytest.raises(DataError, match="at least one document"):
        pack([])


@given(st.lists(st.integers(1, 20), max_size=30), st.integers(20, 50))
def test_first_fit_deals_everything_once_and_fills_no_bin_over(lengths, budget):
    bins = first_fit(lengths, budget)
    assert sorted(place for places in bins for place in places) == list(range(len(lengths)))
    assert all(places == sorted(places) and places for places in bins)
    assert all(sum(lengths[place] for place in places) <= budget for places in bins)
    # All but one bin are more than half full, so there are less than twice as many as the tokens need, and one.
    assert (len(bins) - 1) * budget < 2 * sum(lengths) or not lengths
    assert first_fit(lengths, budget) == bins


def test_first_fit_by_hand():
    assert first_fit([3, 7, 5, 2, 3], 10) == [[0, 1], [2, 3, 4]]
    assert first_fit([6, 6, 4], 10) == [[0, 2], [1]]
    assert first_fit([], 10) == []
    with pytest.raises(DataError, match="number 1 has length 11, more than the 10"):
        first_fit([3, 11], 10)


@settings(deadline=None, max_examples=60)
@given(documents())
def test_groups_of_a_document_are_one_answer(docs):
    batch = pack(docs)
    if not batch.targets:
        return
    wanted, first = [], 0
    for document in sorted(docs, key=len):
        wanted += [first] * len(document.targets)
        first += len(document.targets)
    assert batch.answers().tolist() == wanted
