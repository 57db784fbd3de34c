"""Whatever an agent file contains, it is loaded or its errors are reported."""

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents.escalation import EscalationRule, normalize_words
from agents.loader import load_agents
from core.errors import StartupError
from core.texts import is_storable
from tests.support.agents import TOOLS, agent_text, write_agents
from tests.support.profiles import examples

VALID = agent_text("clerk")
# Pieces of text that mean something to YAML.
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
def damaged_files(draw: st.DrawFn) -> str:
    """Replace a piece of a valid file with something else."""
    start = draw(st.integers(0, len(VALID)))
    return VALID[:start] + draw(MARKED) + VALID[start + draw(st.integers(0, 40)) :]


@settings(max_examples=examples(300), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=(st.text() | MARKED | damaged_files() | MARKED.map("---\n{}\n---\nHi".format)).map(
        lambda text: text.encode("utf-8", "surrogatepass")
    )
    | st.binary()
)
def test_any_file_is_loaded_or_its_errors_are_reported_with_their_lines(
    content: bytes, tmp_path: Path
) -> None:
    write_agents(tmp_path)
    (tmp_path / "clerk.md").write_bytes(content)
    lines = content.count(b"\n") + content.count(b"\r") + 1
    try:
        agents = load_agents(tmp_path, tools=TOOLS)
    except StartupError as error:
        for line in re.findall(r"^(?:clerk|general)\.md:(\d+): .", error.message, re.MULTILINE):
            assert 1 <= int(line) <= max(lines, 38)
    else:
        assert set(agents) == {"clerk", "general"}


@given(before=st.text(), phrase=st.text().filter(is_storable).filter(normalize_words), after=st.text())
def test_a_phrase_between_other_words_matches(before: str, phrase: str, after: str) -> None:
    rule = EscalationRule(when="The phrase occurs.", phrases=(phrase,))
    assert rule.applies_to(f"{before} {phrase.upper()} {after}")
    assert not rule.applies_to(f"a{''.join(normalize_words(phrase).split())}z")


@pytest.mark.parametrize("text", ["ação", "AÇÃO", "acao", "a\u0063\u0327a\u0303o"])
def test_words_are_the_same_however_they_are_written(text: str) -> None:
    assert normalize_words(text) == "acao"
