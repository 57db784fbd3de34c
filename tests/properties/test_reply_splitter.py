"""However a reply is cut into pieces, its reasoning and its answer are the same, and no word is lost."""

import re
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from core.models.reasoning import Piece, ReplySplitter, join_pieces
from tests.support.profiles import examples

TAGS = ["<think>", "</think>", "<Thinking>", "</thinking>", "<reply>", "</reply>", "<thought>", "</thought>"]
TEXT = st.lists(
    st.sampled_from(
        [*TAGS, "<", "</", "<thin", "think>", "<b>", " ", "\n", "1 < 2", "Olá 👋", "It is 2.4.1."]
    ),
    max_size=8,
).map("".join)
ANY_TAG = re.compile(r"</?(think|thinking|thought|reasoning|reply)>", re.IGNORECASE)


def split(pieces: list[str], *, may_call_tools: bool, calls_after: int | None = None) -> list[Piece]:
    splitter = ReplySplitter(may_call_tools=may_call_tools)
    found: list[Piece] = []
    for index, piece in enumerate(pieces):
        found += splitter.feed(piece)
        if index == calls_after:
            found += splitter.mark_tool_call()
    return [*found, *splitter.close()]


@st.composite
def cut_texts(draw: st.DrawFn) -> tuple[str, list[str]]:
    text = draw(TEXT)
    cuts = draw(st.lists(st.integers(0, len(text)), max_size=12))
    return text, [text[start:end] for start, end in pairwise([0, *sorted(cuts), len(text)])]


@given(cut_texts(), st.booleans())
@example(("<think>a</think>\n b", list("<think>a</think>\n b")), True)
@settings(max_examples=examples(300), deadline=None)
def test_every_cut_gives_the_same_thought_and_answer(
    text_and_pieces: tuple[str, list[str]], may_call_tools: bool
) -> None:
    text, pieces = text_and_pieces
    whole = join_pieces(split([text], may_call_tools=may_call_tools))
    assert join_pieces(split(pieces, may_call_tools=may_call_tools)) == whole


@given(cut_texts(), st.booleans())
@example(("think><think><", ["think><think><"]), False)
@example(("<<think><thin</think>think>", ["<<think><thin</think>think>"]), False)
@settings(max_examples=examples(300), deadline=None)
def test_nothing_is_lost_but_tags_and_white_space(
    text_and_pieces: tuple[str, list[str]], may_call_tools: bool
) -> None:
    text, pieces = text_and_pieces

    def count(words: str) -> Counter[str]:
        return Counter("".join(words.split()))

    before = count(text)
    after = count("".join(join_pieces(split(pieces, may_call_tools=may_call_tools))))
    # Characters are compared: once a tag is gone, what was around it may make another.
    assert count(ANY_TAG.sub("", text)) <= after <= before


@given(cut_texts(), st.data())
@settings(max_examples=examples(200), deadline=None)
def test_a_reply_that_calls_a_tool_has_no_answer(
    text_and_pieces: tuple[str, list[str]], data: st.DataObject
) -> None:
    _, pieces = text_and_pieces
    calls_after = data.draw(st.integers(0, len(pieces) - 1))
    found = split(pieces, may_call_tools=True, calls_after=calls_after)
    assert join_pieces(found)[1] == ""
    if "<reply>" not in "".join(pieces).lower():
        assert "answer" not in {kind for kind, _ in found}


@pytest.mark.parametrize(
    ("text", "may_call_tools", "thought", "answer"),
    [
        ("Hello.", False, "", "Hello."),
        ("<think>Hm.</think>\n\nHello.", False, "Hm.", "Hello."),
        ("Hm.</think>Hello.", False, "Hm.", "Hello."),
        ("<think>Hm. And so on", False, "Hm. And so on", ""),
        ("I know it. <reply>\nHello.", True, "I know it. ", "Hello."),
        ("<reply>Hello.</reply> Done.", True, "Done.", "Hello."),
        ("<think>Say <reply>?</think><reply>Hello.", True, "Say <reply>?", "Hello."),
        ("Write <reply> there.", False, "", "Write <reply> there."),
        ("a < b <thin", False, "", "a < b <thin"),
    ],
)
def test_tags_say_what_is_reasoning(text: str, may_call_tools: bool, thought: str, answer: str) -> None:
    assert join_pieces(split(list(text), may_call_tools=may_call_tools)) == (thought, answer)


def test_a_marked_answer_is_streamed_at_once_and_other_text_when_the_reply_ends() -> None:
    splitter = ReplySplitter(may_call_tools=True)
    assert splitter.feed("<reply>Your order") == [("answer", "Your order")]
    splitter = ReplySplitter(may_call_tools=True)
    assert splitter.feed("Your order") == []
    assert splitter.close() == [("answer", "Your order")]


def test_text_is_streamed_at_once_where_no_tool_can_follow() -> None:
    splitter = ReplySplitter()
    assert [splitter.feed(piece) for piece in ("Your <", "b> order")] == [
        [("answer", "Your ")],
        [("answer", "<b> order")],
    ]
