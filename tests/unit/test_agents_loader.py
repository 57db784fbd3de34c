"""A wrong file of an agent stops the start, and the message says where it is wrong."""

from pathlib import Path

import pytest

from agents.loader import load_agents, outside_utterances
from core.errors import StartupError
from tests.support.agents import TOOLS, agent_text, write

FIELDS = "name, category, description, examples, pattern, tools, retrieval, temperature, escalation"
SOUND = agent_text("clerk")


def faults(folder: Path) -> list[str]:
    with pytest.raises(StartupError) as caught:
        load_agents(folder, tools=TOOLS)
    return caught.value.message.split("\n")


def test_agents_are_read_and_sorted_by_name(tmp_path: Path) -> None:
    write(tmp_path, zoe=agent_text("zoe"), amy=agent_text("amy"))
    (tmp_path / "README.md").write_text("no agent")
    agents = load_agents(tmp_path, tools=TOOLS)
    assert list(agents) == ["amy", "general", "zoe"]
    amy = agents["amy"]
    assert (amy.tools, amy.prompt, amy.temperature) == (("look_up", "send"), "You help.", 0.2)
    assert amy.utterances[:2] == ("amy hello 0", "amy hello 1")


def test_a_file_saved_on_windows_is_read(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "clerk.md").write_bytes(b"\xef\xbb\xbf" + SOUND.replace("\n", "\r\n").encode())
    assert load_agents(tmp_path, tools=TOOLS)["clerk"].prompt == "You help."


def test_a_line_of_dashes_in_the_prompt_is_a_part_of_it(tmp_path: Path) -> None:
    write(tmp_path, clerk=SOUND + "---\nBe kind.\n")
    assert load_agents(tmp_path, tools=TOOLS)["clerk"].prompt == "You help.\n---\nBe kind."


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("---\nname", "name", "1: a line '---' must open the front matter here"),
        ("]\n---\n", "]\n", "1: the front matter that opens here is not closed by a line '---'"),
        (
            "description: Helps.",
            "description: Helps: a lot",
            "4: the YAML cannot be read: mapping values are not allowed here",
        ),
        (
            "description: Helps.",
            "description: \x07",
            "4: the YAML cannot be read: it holds the character U+0007",
        ),
        (
            "description: Helps.",
            'description: "\\UFFFFFFFF"',
            "4: the YAML cannot be read: Python int too large to convert to C int",
        ),
        (
            "description: Helps.",
            "description: &it Helps.\nmore: *it",
            "5: the YAML cannot be read: aliases (*name) are not used here; write the value out",
        ),
        (
            "description: Helps.",
            f"description: {'[' * 99}",
            "4: the YAML cannot be read: lists and mappings are nested too deep",
        ),
        ("category", "categori", f"3: categori: there is no such field; the fields are: {FIELDS}"),
        ("description: Helps.\n", "", "1: description: is missing"),
        ("description: Helps.", "description: 7", "4: description: Input should be a valid string"),
        (
            "description: Helps.",
            "description: no",
            "4: description: YAML reads 'no' as bool; put it in quotes if it is a text",
        ),
        (
            "description: Helps.",
            "description: 2026-11-22",
            "4: description: YAML reads '2026-11-22' as timestamp; put it in quotes if it is a text",
        ),
        (
            "description: Helps.",
            "description:",
            "4: description: YAML reads '' as null; put it in quotes if it is a text",
        ),
        ("description: Helps.", 'description: " "', "4: description: is empty"),
        (
            "description: Helps.",
            'description: "a\\0b"',
            "4: description: must hold neither NUL nor halves of surrogate pairs",
        ),
        ("category: support", "category: [support]", "3: category: Input should be "),
        ("category: support", "category: finance", "3: category: Input should be 'sales', 'retention', "),
        ("pattern: react", "pattern: think", "5: pattern: Input should be 'react', 'critique_refine', "),
        ("retrieval: general", "retrieval: all", "9: retrieval: Input should be 'support_technical', "),
        ("name: clerk", "name: clark", "2: name: must be the file's name, 'clerk'"),
        ("  - send", "  - foo", "8: tools[1]: there is no tool 'foo'; the tools are: look_up, send"),
        ("  - send", "  - 2026-11-22", "8: tools[1]: YAML reads '2026-11-22' as timestamp; "),
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
        ("temperature: 0.2", "temperature: .nan", "10: temperature: YAML reads '.nan' as float; "),
        ("temperature: 0.2", "temperature: 1e999", "10: temperature: Input should be a valid number"),
        ("    - clerk hello 7\n", "", "12: examples.en: Tuple should have at least 8 items after validation"),
        ("    - clerk hello 7\n", "    - '!?'\n", "20: examples.en[7]: has no word in it"),
        ("  pt:", "  fr:", "21: examples.fr: Input should be 'en' or 'pt'"),
        (
            "    - clerk hello 7\n",
            "    - Clerk, hello 6!\n",
            "20: examples.en[7]: stands already in clerk.md:19",
        ),
        ("    team: support\n", "", "31: escalation[0].team: is missing"),
        ("    team: support\n", "    team: nobody\n", "32: escalation[0].team: Input should be "),
        ("[real person]", '["..."]', "33: escalation[0].phrases[0]: has no word in it"),
        (
            "    team: support\n",
            "    team: support\n    who: me\n",
            "33: escalation[0].who: there is no such field",
        ),
        ("temperature: 0.2", "temperature: 0.2\nname: clerk", "11: name: is given twice, first at line 2"),
        ("temperature: 0.2", "temperature: 0.2\n? [a]\n: b", "11: the name of a field must be a word"),
        (
            "temperature: 0.2",
            "temperature: 0.2\nprompt: Hi",
            "11: prompt: is no field; the prompt is the text",
        ),
        ("You help.", " ", "35: prompt: is empty"),
    ],
)
def test_a_fault_is_told_with_its_file_and_line(old: str, new: str, told: str, tmp_path: Path) -> None:
    assert old in SOUND
    found = faults(write(tmp_path, clerk=SOUND.replace(old, new, 1)))
    assert len([line for line in found if line.startswith(f"clerk.md:{told}")]) == 1, found


def test_front_matter_that_is_no_mapping_is_told(tmp_path: Path) -> None:
    found = faults(write(tmp_path, clerk="---\n\n- a\n---\nYou help."))
    assert found == ["clerk.md:3: the front matter must be fields, 'name: value' each"]


def test_empty_front_matter_lacks_every_field(tmp_path: Path) -> None:
    found = faults(write(tmp_path, clerk="---\n---\nYou help."))
    assert found == [f"clerk.md:1: {field}: is missing" for field in FIELDS.split(", ")]


def test_a_file_that_is_not_utf_8_is_told_with_the_line(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "clerk.md").write_bytes(b"---\nname: clerk\ndescription: Ol\xe1\n---\n")
    assert faults(tmp_path) == ["clerk.md:3: the file is not UTF-8 text; save it as UTF-8"]


def test_a_folder_with_an_agents_name_is_told(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "clerk.md").mkdir()
    assert faults(tmp_path) == ["clerk.md:1: the file cannot be read: Is a directory"]


def test_an_example_of_two_agents_is_told_where_it_stands_again(tmp_path: Path) -> None:
    write(tmp_path, clerk=SOUND.replace("clerk hello 3", "GENERAL, hello 1", 1))
    assert faults(tmp_path) == ["general.md:14: examples.en[1]: stands already in clerk.md:16"]


def test_all_faults_of_all_files_are_told_at_once(tmp_path: Path) -> None:
    broken = SOUND.replace("category: support", "category: finance").replace("- send", "- foo")
    other = agent_text("other").replace("retrieval: general\n", "").replace("name: other", "name: no")
    assert [
        line.split(": ")[:2] for line in faults(write(tmp_path, clerk=broken, other=other, third="?"))
    ] == [
        ["clerk.md:3", "category"],
        ["clerk.md:8", "tools[1]"],
        ["other.md:1", "retrieval"],
        ["other.md:2", "name"],
        ["third.md:1", "a line '---' must open the front matter here"],
    ]


def test_there_must_be_a_general_agent(tmp_path: Path) -> None:
    (tmp_path / "clerk.md").write_text(SOUND)
    assert faults(tmp_path) == ["general.md:1: there must be this agent: it answers what no other does"]


@pytest.mark.parametrize("folder", ["", "nowhere"])
def test_a_folder_without_agents_is_told(folder: str, tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="there are no agents in "):
        load_agents(tmp_path / folder, tools=TOOLS)


def test_messages_outside_are_read_without_comments(tmp_path: Path) -> None:
    (tmp_path / "outside.txt").write_text("# English\nWhat is the weather?\n\n  Who won?  \n")
    assert outside_utterances(tmp_path) == ("What is the weather?", "Who won?")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "outside.txt:1: the file cannot be read: No such file or directory"),
        (b"# nothing\n", "outside.txt:1: there are no messages; write one a line"),
        (b"Hi\n\xff\n", "outside.txt:2: the file is not UTF-8 text; save it as UTF-8"),
    ],
)
def test_a_list_of_messages_outside_that_cannot_be_used_is_told(
    content: bytes | None, told: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "outside.txt").write_bytes(content)
    with pytest.raises(StartupError) as caught:
        outside_utterances(tmp_path)
    assert caught.value.message == told
