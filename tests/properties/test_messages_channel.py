"""Messages kept as deltas are the messages ``add_messages`` would have kept."""

from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, RemoveMessage
from langgraph.graph.message import REMOVE_ALL_MESSAGES, add_messages

from nodes.shared.channels import MessagesChannel, merge_messages

IDS = st.sampled_from(["a", "b", "c", "d", "e"])
SAID = st.builds(lambda text, id_: HumanMessage(text, id=id_), st.text(max_size=3), IDS) | st.builds(
    lambda text, id_: AIMessage(text, id=id_), st.text(max_size=3), IDS
)
REMOVED = (IDS | st.just(REMOVE_ALL_MESSAGES)).map(RemoveMessage)
WRITES = st.lists(st.lists(SAID | REMOVED, max_size=4), max_size=8)


@given(WRITES, WRITES)
def test_steps_may_be_replayed_together_or_one_by_one(first: list[Any], second: list[Any]) -> None:
    together = merge_messages([], first + second)
    assert merge_messages(merge_messages([], first), second) == together


@given(st.lists(st.lists(SAID, max_size=4), max_size=8))
def test_messages_are_added_and_replaced_like_add_messages_does(writes: list[Any]) -> None:
    expected: list[AnyMessage] = []
    for write in writes:
        expected = list(add_messages(expected, write))  # type: ignore[arg-type]
    assert merge_messages([], writes) == expected


@given(st.lists(SAID, max_size=6), st.sets(IDS))
def test_removed_messages_are_gone_and_the_others_keep_their_order(
    said: list[Any], removed: set[str]
) -> None:
    kept = merge_messages([], [said])
    left = merge_messages(kept, [[RemoveMessage(id_) for id_ in removed]])
    assert left == [message for message in kept if message.id not in removed]


def test_snapshots_together_stay_a_small_multiple_of_the_conversation() -> None:
    channel = MessagesChannel(merge_messages, list)
    since, snapshots = 0, []
    for number in range(3_000):
        channel.update([[HumanMessage("x", id=str(number))]])
        since += 1
        if since >= channel.snapshot_frequency:
            snapshots.append(number + 1)
            since = 0
    assert sum(snapshots) < 6 * 3_000
    assert all(newer <= older * 4 / 3 + 50 for older, newer in pairwise(snapshots))
