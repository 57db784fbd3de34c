"""``make chaos`` does what it says; how often it is done is up to who runs it."""

from pathlib import Path

from tests.support.process import launch


async def test_a_service_that_is_killed_and_started_again_does_nothing_twice(tmp_path: Path) -> None:
    process = await launch(tmp_path, "-m", "benchmarks.chaos", "--kills", "1", "--seed", "3")
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    assert "1 kills in" in output.decode()
    assert "entries, whole" in output.decode()
