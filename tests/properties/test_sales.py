"""What holds for a deal whatever the model writes, run after run."""

from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import HumanMessage

from nodes.hierarchical.state import Subtask
from nodes.sales.changes import apply_changes
from nodes.sales.evidence import names_value
from nodes.sales.nodes import build_reading_update
from nodes.sales.state import DealReading, ObjectionReading, SalesState
from tools.crm.models import Objection, Opportunity, OpportunityChanges, Qualification, Stage

STAGES: tuple[Stage, ...] = (
    "qualification",
    "needs",
    "solution",
    "objections",
    "proposal",
    "negotiation",
    "closed_won",
    "closed_lost",
)
PHRASES = [
    "",
    "null",
    "We accept the proposal.",
    "We do not accept the proposal.",
    "We will not buy.",
    "Is it dear?",
    "12,000 dollars",
    "Enterprise for USD 10,800 a year",
    "Enterprise for USD 9,000 a year",
    "All for USD 12,000, paid yearly",
    "10 % off",
    "\0 \ud800",
]
texts = st.sampled_from(PHRASES) | st.text(max_size=20)
values = st.sampled_from([0.0, 9_000.0, 10_800.0, 12_000.0]) | st.floats(0, 1e9, allow_nan=False)
objections = st.builds(ObjectionReading, text=texts, answer=texts)
readings = st.builds(
    DealReading,
    why=texts,
    budget=texts,
    authority=texts,
    need=texts,
    timeline=texts,
    needs=st.lists(texts, max_size=3),
    solution=texts,
    objections=st.lists(objections, max_size=2),
    proposal=texts,
    terms=texts,
    value=st.none() | values,
    discount_percent=st.sampled_from([0.0, 10.0]),
    agreement=texts,
    refusal=texts,
    not_ready=st.booleans(),
    follow_up_on=st.sampled_from(["", "2027-01-31", "soon", "2001-01-01"]),
    needs_person=st.sampled_from(["no", "legal"]),
    next_action=texts,
)
words = st.lists(st.sampled_from(PHRASES), max_size=3).map(" ".join)
worked = st.dictionaries(
    st.sampled_from(["qualification", "needs", "solution", "objections", "proposal", "negotiation"]), texts
)
runs = st.lists(st.tuples(readings, words, worked), max_size=6)
maybe = st.none() | st.sampled_from(["Known.", "All for USD 10,800"])
deals = st.builds(
    Opportunity,
    id=st.just("OPP-1"),
    contact_id=st.just("c"),
    title=st.just("Seats"),
    stage=st.sampled_from(STAGES[:6]),
    value=st.sampled_from([0.0, 10_800.0]),
    currency=st.just("USD"),
    qualification=st.builds(Qualification, budget=maybe, authority=maybe, need=maybe, timeline=maybe),
    needs=st.sampled_from([[], ["Room"]]),
    solution=maybe,
    objections=st.lists(st.builds(Objection, text=st.just("Dear"), answer=maybe), max_size=1),
    proposal=maybe,
    terms=maybe,
    created_at=st.just("2026-11-22"),
    updated_at=st.just("2026-11-22"),
    version=st.just(1),
)


def state_of(deal: Opportunity, said: str, brought: dict[str, str]) -> SalesState:
    subtasks = [
        Subtask(id=f"t{at}", agent=name, task="", depends_on=[], status="done", result=text, reason=None)
        for at, (name, text) in enumerate(brought.items(), 1)
    ]
    known = {"messages": [HumanMessage(said)], "unread": said.strip(), "subtasks": subtasks}
    return cast(
        "SalesState",
        {**known, "opportunity": deal.model_dump(), "turn": "turn", "today": "2026-11-22"},
    )


def evidence(stage: Stage, deal: Opportunity) -> bool:
    """Whether all that comes before the stage is there."""
    bant = deal.qualification
    return all(
        [
            bant.budget and bant.authority and bant.need and bant.timeline,
            stage == "needs" or deal.needs,
            stage in {"needs", "solution"} or deal.solution,
            stage in {"needs", "solution", "objections"} or all(each.answer for each in deal.objections),
            stage in {"needs", "solution", "objections", "proposal"} or deal.proposal,
        ]
    )


@given(deal=deals, runs=runs)
def test_no_stage_without_evidence_no_win_without_agreement_and_no_value_without_an_offer(
    deal: Opportunity, runs: list[tuple[DealReading, str, dict[str, str]]]
) -> None:
    for reading, said, brought in runs:
        update = build_reading_update(state_of(deal, said, brought), reading)
        changes: dict[str, Any] = update["unsaved"]["opportunity"] or {}
        OpportunityChanges.model_validate(changes)
        after = apply_changes(deal, changes)
        if after.stage == "closed_won":
            assert deal.proposal
            assert "we accept the proposal" in said.casefold()
            assert (after.proposal, after.terms, after.value) == (deal.proposal, deal.terms, deal.value)
            break
        if after.stage == "closed_lost":
            assert "not" in said
            break
        if STAGES.index(after.stage) > STAGES.index(deal.stage):
            assert evidence(after.stage, after)
        if after.value != deal.value:
            assert after.value > deal.value > 0
            assert names_value(f"{after.proposal} {after.terms}", after.value, "USD")
        for text in {after.proposal, after.terms} - {deal.proposal, deal.terms}:
            assert text
            assert "%" not in text
            assert "9,000" not in text
        for mine, theirs in ((after.needs, deal.needs), (after.objections, deal.objections)):
            assert len(mine) >= len(theirs)
        deal = after


@given(deal=deals, reading=readings, said=words, brought=worked)
def test_a_pending_offer_is_not_among_the_changes(
    deal: Opportunity, reading: DealReading, said: str, brought: dict[str, str]
) -> None:
    update = build_reading_update(state_of(deal, said, brought), reading)
    if update["pending_offer"]:
        assert not {"proposal", "terms", "value"} & (update["unsaved"]["opportunity"] or {}).keys()
        assert update["pending_offer"]["reason"]
