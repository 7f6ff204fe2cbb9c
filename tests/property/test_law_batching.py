"""A row alone equals the row in a batch, whatever stands next to it: through a network, guidance, draws and orders."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dimoo.backbone.build import build_backbone
from dimoo.backbone.config import BackboneConfig
from dimoo.backbone.init import initialise
from dimoo.core.rng import generator
from dimoo.denoise import BackboneDenoiser, Branch
from dimoo.diffusion.canvas import Canvas, Plan, Span
from dimoo.diffusion.confidence import GumbelConfidence, Margin, NegativeEntropy, Probability
from dimoo.diffusion.draw import Categorical, Greedy
from dimoo.diffusion.guidance import ClassifierFree, MultiCondition, NoGuidance
from dimoo.diffusion.orders import BlockOrder, MaskGITOrder, RandomOrder
from dimoo.diffusion.parallel import KLASS, AdaptiveOrder, EntropyBounded, Factor, Threshold
from dimoo.diffusion.remasking import NoRemasking, Refinement, ReMDM
from dimoo.diffusion.sampler import sample
from dimoo.diffusion.schedules import Cosine, Linear
from dimoo.diffusion.settled import SettledOrder
from dimoo.diffusion.spread import HaltonOrder, StratifiedOrder
from dimoo.diffusion.stopping import NoStop, StopAtToken

MASK, IDS = 0, 24
BRANCHES = ("condition", "unconditional", "no_image")

DRAWS = st.sampled_from([Greedy(), Categorical(), Categorical(temperature=0.7, top_k=5)])
CONFIDENCES = st.sampled_from([Probability(), Margin(), NegativeEntropy(), GumbelConfidence()])
# So that with this network, whose predictions are sharp and move a lot, rows finish at many different steps.
RULES = st.sampled_from(
    [
        Threshold(threshold=0.6),
        Factor(factor=0.7),
        EntropyBounded(bound=0.8),
        KLASS(threshold=0.3, max_drift=1.0, steps=1),
        KLASS(threshold=0.1, max_drift=2.0, steps=2, fallback=2),
    ]
)
GUIDANCES = st.sampled_from(
    [NoGuidance(), ClassifierFree(scale=2.0), MultiCondition(scales=(("unconditional", 1.0), ("no_image", 2.0)))]
)
TOKENS = st.integers(1, IDS - 1)


@st.composite
def orders(draw, length):
    """An order, a number of steps that suits it, a confidence that it reads and a remasking that goes with it."""
    steps, remaskings = draw(st.integers(1, 6)), [NoRemasking(), Refinement(rounds=2, share=0.3)]
    schedule = draw(st.sampled_from([Cosine(), Linear()]))
    kind = draw(st.sampled_from(["scheduled", "spread", "block", "adaptive", "settled"]))
    if kind == "scheduled":
        order = draw(st.sampled_from([MaskGITOrder(schedule=schedule), RandomOrder(schedule=schedule)]))
    elif kind == "spread":
        order = draw(st.sampled_from([HaltonOrder, StratifiedOrder]))(schedule=schedule, grid=(1, length), offset=1)
    elif kind == "adaptive":
        rule, block = draw(RULES), draw(st.sampled_from([None, 2, 5]))
        order, steps = AdaptiveOrder(rule=rule, block=block), steps + 5
    else:
        order = BlockOrder(block=12)
        order = SettledOrder(order=order, max_drift=5.0, steps=1) if kind == "settled" else order
    if kind in ("scheduled", "spread"):
        remaskings += [ReMDM(eta=0.5), ReMDM(eta=0.3, strategy="cap", by_confidence=True)]
    confidence = draw(CONFIDENCES)
    if kind == "adaptive":
        confidence = NegativeEntropy() if isinstance(rule, EntropyBounded) else Probability()
    return {"order": order, "steps": steps, "confidence": confidence, "remasking": draw(st.sampled_from(remaskings))}


@st.composite
def rows(draw):
    """A row: its answer, branches, plan and seed."""
    answer = draw(st.lists(st.just(MASK) | TOKENS, min_size=1, max_size=12))
    plan = Plan(
        **draw(orders(len(answer))),
        draw=draw(DRAWS),
        guidance=draw(GUIDANCES),
        stopping=draw(st.sampled_from([NoStop(), StopAtToken(token=3)])),
    )
    contexts = {name: draw(st.lists(TOKENS, max_size=7)) for name in BRANCHES}
    hidden = draw(st.booleans())
    branches = {
        name: Branch(context=torch.tensor(ids, dtype=torch.int64), hide_given=hidden and name == "unconditional")
        for name, ids in contexts.items()
    }
    return torch.tensor(answer), branches, plan, draw(st.integers(0, 99))


@pytest.fixture(scope="module")
def backbone():
    """In float64, so that rounding decides no draw."""
    config = BackboneConfig(d_model=16, layers=2, heads=2, kv_heads=2, mlp_hidden=24, vocab_size=IDS)
    model = initialise(build_backbone(config), generator(0, "law"))
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data.mul_(10.0)
    return model.double().eval()


def states(backbone, batch):
    """Every state of a batch, as rows of ids."""
    spans, offset = [], 0
    for index, (answer, _, plan, _) in enumerate(batch):
        positions = torch.arange(offset, offset + len(answer))
        spans.append(Span(row=index, positions=positions, columns=(0, IDS), plan=plan, forbidden=(MASK,), fill=1))
        offset += len(answer)
    start = Canvas.start(
        ids=torch.cat([answer for answer, _, _, _ in batch]),
        lengths=tuple(len(answer) for answer, _, _, _ in batch),
        spans=tuple(spans),
        mask_id=MASK,
    )
    denoiser = BackboneDenoiser(backbone, start, [branches for _, branches, _, _ in batch])
    seen = [start, *(state.canvas for state in sample(denoiser, start, [generator(seed) for *_, seed in batch]))]
    return [[canvas.row(index).tolist() for canvas in seen] for index in range(len(batch))]


@settings(deadline=None, max_examples=50)
@given(batch=st.lists(rows(), min_size=2, max_size=4))
def test_a_row_alone_equals_the_row_in_a_batch(backbone, batch):
    for row, together in zip(batch, states(backbone, batch), strict=True):
        (alone,) = states(backbone, [row])
        # A row that is done waits for the others.
        assert together == alone + [alone[-1]] * (len(together) - len(alone))
        given = row[0] != MASK
        assert torch.equal(torch.tensor(together[-1])[given], row[0][given])
        assert MASK not in together[-1]


@settings(deadline=None, max_examples=15)
@given(batch=st.lists(rows(), min_size=2, max_size=3), order=st.randoms(use_true_random=False))
def test_the_order_of_the_batch_does_not_matter(backbone, batch, order):
    places = list(range(len(batch)))
    order.shuffle(places)
    whole, shuffled = states(backbone, batch), states(backbone, [batch[place] for place in places])
    assert [whole[place] for place in places] == shuffled


def test_the_law_can_fail(backbone):
    """A seed or a context shows in the result, so that a mixed-up batch would be found."""
    plan = Plan(
        steps=4,
        order=MaskGITOrder(schedule=Cosine()),
        draw=Categorical(),
        confidence=GumbelConfidence(),
        guidance=NoGuidance(),
        stopping=NoStop(),
    )
    answer = torch.full((8,), MASK)
    context = {"condition": Branch(context=torch.tensor([1, 2, 3]))}
    other = {"condition": Branch(context=torch.tensor([4, 5]))}
    greedy = replace(plan, draw=Greedy(), confidence=Probability())
    ((*_, base),) = states(backbone, [(answer, context, plan, 0)])
    assert base != states(backbone, [(answer, context, plan, 1)])[0][-1]
    ((*_, surest),) = states(backbone, [(answer, context, greedy, 0)])
    assert surest == states(backbone, [(answer, context, greedy, 1)])[0][-1]
    assert surest != states(backbone, [(answer, other, greedy, 0)])[0][-1]
