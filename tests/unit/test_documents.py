"""The documents say what the code does."""

from importlib import import_module

import pytest

from graphs.registry import REGISTRY
from service.cli import docs as documents


@pytest.mark.parametrize("page", documents.PAGES)
def test_generated_parts_of_a_page_are_current(page: str) -> None:
    text = (documents.PROJECT / page).read_text(encoding="utf-8")
    assert documents.fill_page(text) == text, "run `make docs`"


def test_the_readme_is_short() -> None:
    assert len((documents.PROJECT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


def test_the_example_environment_is_current() -> None:
    text = (documents.PROJECT / ".env.example").read_text(encoding="utf-8")
    assert documents.build_env_example() == text, "run `make docs`"


def test_studio_has_every_graph_of_the_registry() -> None:
    text = (documents.PROJECT / "langgraph.json").read_text(encoding="utf-8")
    assert documents.fill_langgraph_json(text) == text, "run `make docs`"
    studio = import_module("graphs.studio")
    for name in REGISTRY:
        graph = getattr(studio, name)
        assert (graph.name, graph.checkpointer, graph.store) == (name, None, None)
