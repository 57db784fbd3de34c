"""Whatever stands in an agent's file, it is read or its faults are told."""

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents.loader import load_agents
from agents.spec import EscalationRule, words
from core.errors import StartupError
from tests.support.agents import TOOLS, agent_text, write

SOUND = agent_text("clerk")
# What YAML gives a meaning to, in pieces.
MARKUP = st.sampled_from(
    [
        *"-:?,[]{}#&*!|>'\"%@` \t\n~=<.\\0123456789\u2028\x85\ufeff",
        "---\n",
        "...\n",
        "<<: ",
        "!!int ",
        "!!float ",
        "!!binary ",
        "!!python/name:os.system ",
        "&a ",
        "*a",
        '"\\U00110000"',
        '"\\uD800"',
        "%YAML 1.1\n",
        "%TAG ! x:\n",
        "1:00:00.5",
        "0b_",
        ".inf",
        "name: clerk\n",
        "tools:\n  - send\n",
        "examples:\n  en:\n",
    ]
)
MARKED = st.lists(MARKUP | st.text(max_size=3), max_size=40).map("".join)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """A sound file with something else in the place of a piece of it."""
    start = draw(st.integers(0, len(SOUND)))
    return SOUND[:start] + draw(MARKED) + SOUND[start + draw(st.integers(0, 40)) :]


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=(st.text() | MARKED | damaged() | MARKED.map("---\n{}\n---\nHi".format)).map(
        lambda text: text.encode("utf-8", "surrogatepass")
    )
    | st.binary()
)
def test_any_file_is_read_or_its_faults_are_told_with_its_lines(content: bytes, tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "clerk.md").write_bytes(content)
    lines = content.count(b"\n") + content.count(b"\r") + 1
    try:
        agents = load_agents(tmp_path, tools=TOOLS)
    except StartupError as error:
        for line in re.findall(r"^(?:clerk|general)\.md:(\d+): .", error.message, re.MULTILINE):
            assert 1 <= int(line) <= max(lines, 37)
    else:
        assert set(agents) == {"clerk", "general"}


@given(before=st.text(), phrase=st.text().filter(words), after=st.text())
def test_a_phrase_between_other_words_is_heard(before: str, phrase: str, after: str) -> None:
    rule = EscalationRule(when="It is said.", phrases=(phrase,), team="support")
    assert rule.applies_to(f"{before} {phrase.upper()} {after}")
    assert not rule.applies_to(f"a{''.join(words(phrase).split())}z")


@pytest.mark.parametrize("text", ["ação", "AÇÃO", "acao", "a\u0063\u0327a\u0303o"])
def test_words_are_the_same_however_they_are_written(text: str) -> None:
    assert words(text) == "acao"
