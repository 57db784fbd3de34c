"""However a reply's JSON is cut into pieces, the answer in it is streamed as it is."""

import json
from itertools import pairwise
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from core.models.fields import FieldTokens
from tests.support.profiles import examples

FIELD = "final_answer"
# Halves of surrogate pairs are no text; astral characters become pairs when they are escaped.
TEXT = st.text(max_size=30) | st.text(alphabet='"\\/\b\n\t\r {}[]:,ué👋\u2028\0', max_size=30)
NAMES = TEXT.filter(lambda name: name != FIELD)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT | st.just(FIELD), inner, max_size=3),
    max_leaves=5,
)
FIELDS = st.dictionaries(NAMES, VALUES, max_size=3)
JUNK = st.text(max_size=60) | st.text(alphabet='{}[]":,\\ufinal_answer0dD8 1.-+eE', max_size=60)


@st.composite
def replies(draw: st.DrawFn, answers: st.SearchStrategy[Any] = TEXT) -> tuple[str, Any]:
    """The JSON of an object with the field, and the field's value."""
    answer = draw(answers)
    reply = {**draw(FIELDS), FIELD: answer, **draw(FIELDS)}
    text = json.dumps(reply, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 0, 2])))
    return text, answer


@st.composite
def pieces_of(draw: st.DrawFn, text: str) -> list[str]:
    """The text, cut anywhere."""
    cuts = draw(st.lists(st.integers(0, len(text)), max_size=12))
    return [text[start:end] for start, end in pairwise([0, *sorted(cuts), len(text)])]


@given(st.data(), replies())
@settings(max_examples=examples(120), deadline=None)
def test_the_streamed_pieces_are_the_answer(data: st.DataObject, reply: tuple[str, str]) -> None:
    text, answer = reply
    tokens = FieldTokens(FIELD)
    assert "".join(tokens.feed(piece) for piece in data.draw(pieces_of(text))) == answer


@given(replies())
@settings(max_examples=examples(60), deadline=None)
def test_character_by_character_every_step_is_a_beginning_of_the_answer(reply: tuple[str, str]) -> None:
    text, answer = reply
    tokens = FieldTokens(FIELD)
    shown = ""
    for character in text:
        shown += tokens.feed(character)
        assert answer.startswith(shown)
        shown.encode()
    assert shown == answer


@given(st.data(), replies(VALUES.filter(lambda value: not isinstance(value, str))))
@settings(max_examples=examples(60), deadline=None)
def test_an_answer_that_is_not_text_is_not_streamed(data: st.DataObject, reply: tuple[str, Any]) -> None:
    text, _ = reply
    tokens = FieldTokens(FIELD)
    assert "".join(tokens.feed(piece) for piece in data.draw(pieces_of(text))) == ""


@given(st.lists(JUNK, max_size=6))
@example(['{"final_answer": "a\\', "ud83d", '"}'])
@example(['{"final_answer": "a', '", "final_answer": "b"}'])
@example(["[[[[{{{{", "}]}]"])
@settings(max_examples=examples(200), deadline=None)
def test_text_that_is_not_json_does_no_harm(pieces: list[str]) -> None:
    tokens = FieldTokens(FIELD)
    shown = "".join(tokens.feed(piece) for piece in pieces)
    shown.encode()


@given(st.data(), replies())
@settings(max_examples=examples(60), deadline=None)
def test_what_follows_the_answer_does_not_change_it(data: st.DataObject, reply: tuple[str, str]) -> None:
    text, answer = reply
    tokens = FieldTokens(FIELD)
    pieces = [*data.draw(pieces_of(text)), data.draw(JUNK), data.draw(JUNK)]
    assert "".join(tokens.feed(piece) for piece in pieces).startswith(answer)


def test_an_escaped_pair_is_streamed_when_it_is_whole() -> None:
    tokens = FieldTokens(FIELD)
    pieces = ['{"final_', 'answer": "', "Olá", " \\ud83d", "\\udc4b", '", "score": 1}']
    assert [tokens.feed(piece) for piece in pieces] == ["", "", "Olá", " ", "👋", ""]
