"""An invalid agent file stops the start, and the message says where the error is."""

from pathlib import Path

import pytest

from agents.loader import load_agents, load_out_of_scope_messages
from core.errors import StartupError
from tests.support.agents import TOOLS, agent_text, write_agents

REQUIRED = [
    "name",
    "category",
    "description",
    "pattern",
    "tools",
    "retrieval",
    "temperature",
    "team",
    "examples",
]
FIELDS = ", ".join([*REQUIRED[:-1], "escalation", "handoff_phrases", "examples"])
VALID = agent_text("clerk")


def load_errors(folder: Path) -> list[str]:
    with pytest.raises(StartupError) as caught:
        load_agents(folder, tools=TOOLS)
    return caught.value.message.split("\n")


def test_agents_are_loaded_and_sorted_by_name(tmp_path: Path) -> None:
    write_agents(tmp_path, zoe=agent_text("zoe"), amy=agent_text("amy"))
    (tmp_path / "README.md").write_text("no agent")
    agents = load_agents(tmp_path, tools=TOOLS)
    assert list(agents) == ["amy", "general", "zoe"]
    amy = agents["amy"]
    assert (amy.tools, amy.prompt, amy.temperature) == (("look_up", "send"), "You help.", 0.2)
    assert amy.utterances[:2] == ("amy hello 0", "amy hello 1")


def test_a_file_with_windows_line_endings_is_loaded(tmp_path: Path) -> None:
    write_agents(tmp_path)
    (tmp_path / "clerk.md").write_bytes(b"\xef\xbb\xbf" + VALID.replace("\n", "\r\n").encode())
    assert load_agents(tmp_path, tools=TOOLS)["clerk"].prompt == "You help."


def test_a_line_of_dashes_in_the_prompt_belongs_to_the_prompt(tmp_path: Path) -> None:
    write_agents(tmp_path, clerk=VALID + "---\nBe kind.\n")
    assert load_agents(tmp_path, tools=TOOLS)["clerk"].prompt == "You help.\n---\nBe kind."


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("---\nname", "name", "1: the front matter must begin here with a line '---'"),
        ("]\n---\n", "]\n", "1: the front matter that begins here is not closed by a line '---'"),
        (
            "description: Helps.",
            "description: Helps: a lot",
            "4: the YAML cannot be read: mapping values are not allowed here",
        ),
        (
            "description: Helps.",
            "description: \x07",
            "4: the YAML cannot be read: it contains the character U+0007",
        ),
        (
            "description: Helps.",
            'description: "\\UFFFFFFFF"',
            "1: the YAML cannot be read: ",
        ),
        (
            "description: Helps.",
            "description: Helps\u2028a lot.",
            "4: the YAML cannot be read: it contains the character U+2028",
        ),
        (
            "description: Helps.",
            f"description: {'[' * 2_000}{']' * 2_000}",
            "1: the YAML cannot be read: maximum recursion depth exceeded",
        ),
        ("category", "categori", f"3: categori: there is no such field; the fields are: {FIELDS}"),
        ("description: Helps.\n", "", "1: description: is missing"),
        (
            "description: Helps.",
            "description: 7",
            "4: description: must be text; if it is meant as text, put it in quotes",
        ),
        (
            "description: Helps.",
            "description: true",
            "4: description: must be text; if it is meant as text, ",
        ),
        ("description: Helps.", "description: 2026-11-22", "4: description: must be text; "),
        ("description: Helps.", "description:", "4: description: must be text; "),
        ("description: Helps.", 'description: " "', "4: description: is empty"),
        (
            "description: Helps.",
            'description: "a\\0b"',
            "4: description: must not contain NUL or unpaired surrogates",
        ),
        ("category: support", "category: [support]", "3: category: Input should be "),
        ("category: support", "category: finance", "3: category: Input should be 'sales', 'retention', "),
        ("pattern: react", "pattern: think", "5: pattern: Input should be 'react', 'critique_refine', "),
        ("retrieval: general", "retrieval: all", "9: retrieval: Input should be 'support_technical', "),
        ("name: clerk", "name: clark", "2: name: must be the name of the file, 'clerk'"),
        ("  - send", "  - foo", "8: tools[1]: there is no tool 'foo'; the tools are: look_up, send"),
        ("  - send", "  - 2026-11-22", "8: tools[1]: must be text; "),
        ("  - send", "  - look_up", "6: tools: 'look_up' is listed twice"),
        ("tools:\n  - look_up\n  - send", "tools: []", "6: tools: the pattern 'react' works with tools; "),
        ("pattern: react", "pattern: answer", "6: tools: the pattern 'answer' calls no tools; "),
        ("temperature: 0.2", "temperature: 1.5", "10: temperature: Input should be less than or equal to 1"),
        (
            "temperature: 0.2",
            "temperature: -1",
            "10: temperature: Input should be greater than or equal to 0",
        ),
        ("temperature: 0.2", 'temperature: "0.2"', "10: temperature: Input should be a valid number"),
        ("temperature: 0.2", "temperature: .nan", "10: temperature: Input should be a finite number"),
        ("temperature: 0.2", "temperature: 1.0e+999", "10: temperature: Input should be a finite number"),
        ("    - clerk hello 7\n", "", "13: examples.en: Tuple should have at least 8 items after validation"),
        ("    - clerk hello 7\n", "    - '!?'\n", "21: examples.en[7]: contains no word"),
        ("  pt:", "  fr:", "22: examples.fr: Input should be 'en', 'pt' or 'es'"),
        (
            "    - clerk hello 7\n",
            "    - Clerk, hello 6!\n",
            "21: examples.en[7]: repeats clerk.md:20",
        ),
        ("team: support\n", "", "1: team: is missing"),
        ("    team: billing\n", "    team: nobody\n", "33: escalation[0].team: Input should be "),
        ("[my lawyer]", '["..."]', "34: escalation[0].phrases[0]: contains no word"),
        (
            "    team: billing\n",
            "    team: billing\n    who: me\n",
            "34: escalation[0].who: there is no such field",
        ),
        (
            "temperature: 0.2",
            "temperature: 0.2\nname: clerk",
            "11: the YAML cannot be read: found duplicate key ",
        ),
        ("temperature: 0.2", "temperature: 0.2\n? [a]\n: b", "1: "),
        (
            "temperature: 0.2",
            "temperature: 0.2\nprompt: Hi",
            "11: prompt: is not a field; the prompt is the text",
        ),
        ("You help.", " ", "36: prompt: is empty"),
    ],
)
def test_an_error_is_reported_with_its_file_and_line(
    old: str, new: str, message: str, tmp_path: Path
) -> None:
    assert old in VALID
    errors = load_errors(write_agents(tmp_path, clerk=VALID.replace(old, new, 1)))
    assert len([line for line in errors if line.startswith(f"clerk.md:{message}")]) == 1, errors


def test_front_matter_that_is_not_a_mapping_is_reported(tmp_path: Path) -> None:
    errors = load_errors(write_agents(tmp_path, clerk="---\n\n- a\n---\nYou help."))
    assert errors == ["clerk.md:3: the front matter must consist of fields, each written 'name: value'"]


def test_empty_front_matter_lacks_every_required_field(tmp_path: Path) -> None:
    errors = load_errors(write_agents(tmp_path, clerk="---\n---\nYou help."))
    assert errors == [f"clerk.md:1: {field}: is missing" for field in sorted(REQUIRED)]


def test_a_file_that_is_not_utf_8_is_reported_with_the_line(tmp_path: Path) -> None:
    write_agents(tmp_path)
    (tmp_path / "clerk.md").write_bytes(b"---\nname: clerk\ndescription: Ol\xe1\n---\n")
    assert load_errors(tmp_path) == ["clerk.md:3: the file is not UTF-8 text; save it as UTF-8"]


def test_a_folder_with_the_name_of_an_agent_file_is_reported(tmp_path: Path) -> None:
    write_agents(tmp_path)
    (tmp_path / "clerk.md").mkdir()
    assert load_errors(tmp_path) == ["clerk.md:1: the file cannot be read: Is a directory"]


def test_an_example_of_two_agents_is_reported_where_it_is_repeated(tmp_path: Path) -> None:
    write_agents(tmp_path, clerk=VALID.replace("clerk hello 3", "GENERAL, hello 1", 1))
    assert load_errors(tmp_path) == ["general.md:15: examples.en[1]: repeats clerk.md:17"]


def test_all_errors_of_all_files_are_reported_at_once(tmp_path: Path) -> None:
    broken = VALID.replace("category: support", "category: finance").replace("- send", "- foo")
    other = agent_text("other").replace("retrieval: general\n", "").replace("name: other", "name: no")
    assert [
        line.split(": ")[:2]
        for line in load_errors(write_agents(tmp_path, clerk=broken, other=other, third="?"))
    ] == [
        ["clerk.md:3", "category"],
        ["clerk.md:8", "tools[1]"],
        ["other.md:1", "retrieval"],
        ["other.md:2", "name"],
        ["third.md:1", "the front matter must begin here with a line '---'"],
    ]


def test_there_must_be_a_general_agent(tmp_path: Path) -> None:
    (tmp_path / "clerk.md").write_text(VALID)
    assert load_errors(tmp_path) == ["general.md:1: this agent must exist: it answers what no other does"]


@pytest.mark.parametrize("folder", ["", "nowhere"])
def test_a_folder_without_agents_is_reported(folder: str, tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="there are no agents in "):
        load_agents(tmp_path / folder, tools=TOOLS)


def test_out_of_scope_messages_are_loaded_without_comments(tmp_path: Path) -> None:
    (tmp_path / "out_of_scope.txt").write_text("# English\nWhat is the weather?\n\n  Who won?  \n")
    assert load_out_of_scope_messages(tmp_path) == ("What is the weather?", "Who won?")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "out_of_scope.txt:1: the file cannot be read: No such file or directory"),
        (b"# nothing\n", "out_of_scope.txt:1: there are no messages; write one per line"),
        (b"Hi\n\xff\n", "out_of_scope.txt:2: the file is not UTF-8 text; save it as UTF-8"),
    ],
)
def test_an_unusable_list_of_out_of_scope_messages_is_reported(
    content: bytes | None, message: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "out_of_scope.txt").write_bytes(content)
    with pytest.raises(StartupError) as caught:
        load_out_of_scope_messages(tmp_path)
    assert caught.value.message == message
