"""Write the generated parts of the documentation: ``make docs``.

``python -m service.cli.docs`` rewrites the marked parts of :data:`PAGES`, ``.env.example``, and the graphs of
``langgraph.json``. A test fails when one of them is out of date.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from core.errors import ServiceError, StartupError
from core.models.steps import OUTPUT_TOKENS
from core.settings import GROUPS, env_name
from graphs.registry import REGISTRY
from graphs.spec import draw_mermaid
from nodes.shared.steps import STEPS
from service.outbox.catalogue import CATALOGUE, EventData, RunEnded

PROJECT = Path(__file__).resolve().parents[2]
# Pages with parts between `<!-- generated:NAME -->` and `<!-- /generated -->`.
PAGES = ("README.md", "docs/errors.md", "docs/events.md", "docs/graphs.md", "docs/settings.md")
_MARKED = re.compile(r"(<!-- generated:(\w+) -->\n).*?(<!-- /generated -->)", re.DOTALL)


def fill_page(text: str) -> str:
    """Return a page with its generated parts written again."""
    return _MARKED.sub(lambda match: f"{match[1]}{_PARTS[match[2]]()}\n{match[3]}", text)


def build_env_example() -> str:
    """Return ``.env.example``: every setting with its description, commented out at its default."""
    lines = [
        "# Copy to .env. Settings keep the default shown unless set; the environment overrides this file."
    ]
    for group in GROUPS.values():
        lines += ["", f"# --- {_read_first_line(group)}"]
        for name, field in group.model_fields.items():
            lines += [f"# {field.description}", f"#{env_name(group, name)}={_format_default(field)}"]
    return "\n".join(lines) + "\n"


def fill_langgraph_json(text: str) -> str:
    """Return ``langgraph.json`` with every graph of the registry."""
    config = json.loads(text)
    config["graphs"] = {name: f"./graphs/studio.py:{name}" for name in REGISTRY}
    return json.dumps(config, indent=2) + "\n"


def _build_graph_table(page: str = "") -> str:
    """Return the table of graphs; ``page`` is the path of the page with the diagrams."""
    rows = ["| graph | what it does | use it for |", "|---|---|---|"]
    rows += [
        f"| [`{spec.name}`]({page}#{spec.name}) | {spec.description} | {spec.suits} |"
        for spec in REGISTRY.values()
    ]
    return "\n".join(rows)


def _build_diagrams() -> str:
    return "\n\n".join(
        f"### {spec.name}\n\n```mermaid\n{draw_mermaid(spec)}\n```" for spec in REGISTRY.values()
    )


def _build_step_table() -> str:
    """Return the table of the steps that call a model."""
    rows = ["| graph | step | kind | temperature | most tokens |", "|---|---|---|---|---|"]
    for graph, steps in STEPS.items():
        for name, step in steps.items():
            most = OUTPUT_TOKENS[step.role]
            limit = f"{most:,}" if most else "the setting"
            rows.append(f"| {graph} | {name} | {step.role} | {step.temperature:g} | {limit} |")
    return "\n".join(rows)


def _build_error_table() -> str:
    """Return the table of the errors of responses, by status."""
    kinds = [kind for kind in _list_kinds(ServiceError) if kind is not StartupError]
    rows = [f"| {kind.status} | `{kind.code}` | {_describe_kind(kind)} |" for kind in kinds]
    return "\n".join(["| status | `error` | when |", "|---|---|---|", *sorted(rows)])


def _list_kinds(kind: type[ServiceError]) -> Iterator[type[ServiceError]]:
    # Only classes of core.errors: exceptions of other packages never reach a response.
    if kind.__module__ == ServiceError.__module__:
        yield kind
        for subclass in kind.__subclasses__():
            yield from _list_kinds(subclass)


def _describe_kind(kind: type[ServiceError]) -> str:
    description = _read_first_line(kind).removeprefix("Raise when ").removeprefix("Raise ").rstrip(".")
    return "an unexpected failure" if kind is ServiceError else description


def _build_event_catalogue() -> str:
    """Return a section for each type of event, with a table of its fields."""
    models: list[type[EventData]] = [*CATALOGUE.values(), RunEnded]
    return "\n\n".join(map(_build_event_section, models))


def _build_event_section(model: type[EventData]) -> str:
    rows = ["| field | type | what it is |", "|---|---|---|"]
    for name, schema in model.model_json_schema()["properties"].items():
        rows.append(f"| `{name}` | {_format_type(schema)} | {schema.get('description', '')} |")
    return "\n".join([f"### {model.type}", "", _read_first_line(model), "", *rows])


def _format_type(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(map(_format_type, schema["anyOf"]))
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    return str(schema.get("format", schema.get("type", "any")))


def _build_settings_table() -> str:
    return "\n".join(["| setting | default | what it is |", "|---|---|---|", *_build_setting_rows()])


def _build_setting_rows() -> Iterator[str]:
    for group in GROUPS.values():
        for name, field in group.model_fields.items():
            default = _format_default(field)
            yield f"| `{env_name(group, name)}` | {f'`{default}`' if default else ''} | {field.description} |"


def _format_default(field: FieldInfo) -> str:
    value: Any = field.default
    if value is None:
        return ""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, bool | tuple | dict):
        # As the settings are parsed: true, [] and {}.
        return json.dumps(value)
    return str(value)


def _read_first_line(group: type) -> str:
    return (group.__doc__ or "").strip().splitlines()[0]


_PARTS: Mapping[str, Callable[[], str]] = {
    "graphs": _build_graph_table,
    "graph_list": lambda: _build_graph_table("docs/graphs.md"),
    "diagrams": _build_diagrams,
    "steps": _build_step_table,
    "errors": _build_error_table,
    "events": _build_event_catalogue,
    "settings": _build_settings_table,
}


def main() -> None:
    """Rewrite the files."""
    for name in PAGES:
        page = PROJECT / name
        page.write_text(fill_page(page.read_text(encoding="utf-8")), encoding="utf-8")
    studio = PROJECT / "langgraph.json"
    studio.write_text(fill_langgraph_json(studio.read_text(encoding="utf-8")), encoding="utf-8")
    (PROJECT / ".env.example").write_text(build_env_example(), encoding="utf-8")


if __name__ == "__main__":
    main()
