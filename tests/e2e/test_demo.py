"""What a newcomer sees of ``make demo``."""

from pathlib import Path

from tests.support.process import launch
from tests.support.scripted import ScriptedChatModel, scripted_models
from tests.support.service import running_service


async def test_the_demo_prints_plain_text_into_a_pipe(tmp_path: Path) -> None:
    process = await launch(tmp_path, "-m", "service.cli.demo")
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    text = output.decode()
    assert "\x1b[" not in text
    for label in ("Thought 1", "Action 1", "Observation 1", "Reflection 1", "Final answer"):
        assert label in text
    used = {line.split()[2] for line in text.splitlines() if line.startswith("Action")}
    assert len(used) >= 3
    answer = text[text.index("Final answer") :]
    assert "batch export API" in answer
    assert "10K" in answer
    assert "it is not a language model" in text


async def test_the_demo_uses_a_running_service_or_explains_that_there_is_none(
    tmp_path: Path, database_url: str
) -> None:
    model = ScriptedChatModel(replies=["It cannot be solved."])
    async with running_service(database_url, scripted_models(model)) as running:
        process = await launch(tmp_path, "-m", "service.cli.demo", "--url", running.url)
        output, _ = await process.communicate()
        assert process.returncode == 0
        assert "It cannot be solved." in output.decode()
    process = await launch(tmp_path, "-m", "service.cli.demo", "--url", running.url)
    _, errors = await process.communicate()
    assert process.returncode == 1
    assert errors.decode().count("\n") == 1
    assert "make serve" in errors.decode()
