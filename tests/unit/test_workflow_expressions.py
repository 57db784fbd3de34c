"""Expressions and templates: their values, the paths they read, and what is rejected before it runs."""

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from core.errors import StepFailed
from workflows.expressions import MAX_GROWTH, Expression, InvalidExpression
from workflows.steps import ApiCall
from workflows.templates import Template, TemplateJson, list_field_paths

CONTEXT: dict[str, Any] = {
    "input": {"name": "Ana", "orders": [{"id": 1, "total": 5.5}, {"id": 2, "total": 40}], "none": None},
    "steps": {"contact": {"status": "succeeded", "output": {"email": "ana@example.com"}, "error": ""}},
}


@pytest.mark.parametrize(
    ("text", "value", "paths"),
    [
        ("input.orders[?total > `10`].id", [2], {("input", "orders")}),
        ("sum(input.orders[].total)", 45.5, {("input", "orders")}),
        ("steps.contact.output.phone || 'none'", "none", {("steps", "contact", "output", "phone")}),
        ("multiply(input.orders[0].id, `3`)", 3, {("input", "orders")}),
        (
            "{a: input.name, b: steps.contact.status}",
            {"a": "Ana", "b": "succeeded"},
            {("input", "name"), ("steps", "contact", "status")},
        ),
        ("map(&add(total, `1`), input.orders)", [6.5, 41], {("input", "orders")}),
        ("input | name", "Ana", {("input", "name")}),
        ("steps.*.status", ["succeeded"], {("steps",)}),
        ("to_number('nan')", None, set()),
    ],
)
def test_an_expression_has_a_value_and_lists_the_paths_it_reads(
    text: str, value: Any, paths: set[tuple[str, ...]]
) -> None:
    expression = Expression.parse(text)
    assert expression.evaluate(CONTEXT) == value
    assert expression.list_paths() == paths


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is empty"),
        ("input.", "not a JMESPath"),
        ("foo(input)", "unknown function foo"),
        ("to_string(a, b)", "takes 1"),
        ("`{oops`", "literal"),
        ("`NaN`", "cannot be stored"),
        ("`99999999999999999999`", "cannot be stored"),
        ("a[::0]", "step 0"),
        ("a" * 1_001, "the maximum is"),
        ("!" * 900 + "a", "deep"),
        ("a" + "[*]" * 300, "deep"),
        ("[" * 200 + "a" + "]" * 200, "deep"),
        ("|".join(["[@,@][]"] * 20), f"more than {MAX_GROWTH} times"),
        ("|".join(["{a:@,b:@}"] * 20) + "|to_string(@)", f"more than {MAX_GROWTH} times"),
        ("map(&[@,@,@,@,@,@,@,@,@], [a,a,a,a,a,a,a,a])", f"more than {MAX_GROWTH} times"),
    ],
)
def test_invalid_or_explosive_expressions_are_rejected_before_they_run(text: str, why: str) -> None:
    with pytest.raises(InvalidExpression, match=why):
        Expression.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "sum(input.name)",
        "input.name < input.orders[0].id",
        "divide(`1`, `0`)",
        "multiply(`9e300`, `9e300`)",
        "join(input.name, input.orders)",
    ],
)
def test_an_evaluation_error_fails_the_step_and_names_the_expression(text: str) -> None:
    with pytest.raises(StepFailed, match=r"cannot be evaluated") as caught:
        Expression.parse(text).evaluate(CONTEXT)
    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("{{ input.orders }}", CONTEXT["input"]["orders"]),
        ("Hi {{input.name}}{{ input.none }}!", "Hi Ana!"),
        (
            {"a": ["{{ input.none }}", 1, "x {{ input.orders[0] }}"]},
            {"a": [None, 1, 'x {"id": 1, "total": 5.5}']},
        ),
        ("{{ {a: {b: input.name}} }}", {"a": {"b": "Ana"}}),
        ("{{ '{{ }}' }}", "{{ }}"),
    ],
)
def test_a_rendered_template_keeps_the_types_of_its_values(template: Any, value: Any) -> None:
    assert Template(template).render(CONTEXT) == value


def test_rendered_data_is_never_parsed_as_a_template() -> None:
    hostile: dict[str, Any] = {"input": {"name": "{{ steps.contact.output }}"}, "steps": CONTEXT["steps"]}
    assert Template("{{ input.name }}").render(hostile) == "{{ steps.contact.output }}"
    assert Template("Hi {{ input.name }}").render(hostile) == "Hi {{ steps.contact.output }}"


def test_data_cannot_escape_its_url_segment() -> None:
    address = Template("https://api.example.com/contacts/{{ input }}/notes?by={{ input }}")
    filled = address.render_address({"input": "../a?b#c&d=é"})
    assert filled == (
        "https://api.example.com/contacts/..%2Fa%3Fb%23c%26d%3D%C3%A9/notes?by=..%2Fa%3Fb%23c%26d%3D%C3%A9"
    )
    values: list[Any] = ["..", ".", "", None, ["a"]]
    for value in values:
        with pytest.raises(StepFailed, match="cannot be a URL segment"):
            address.render_address({"input": value})


class _Holder(BaseModel):
    value: TemplateJson


def test_every_template_error_is_reported_with_its_place() -> None:
    with pytest.raises(ValidationError) as caught:
        _Holder(value={"a": ["{{ input. }}", "fine"], "b": "{{ open"})
    message = str(caught.value)
    assert "a.0: the expression in {{ }} is not a JMESPath expression" in message
    assert "b: a {{ has no }}" in message


def test_templates_that_are_too_large_or_too_deep_are_rejected() -> None:
    deep: Any = "x"
    for _ in range(30):
        deep = [deep]
    for value in (deep, ["x"] * 3_000, "x" * 30_000):
        with pytest.raises(ValidationError, match="has more than"):
            _Holder(value=value)


def test_the_paths_that_the_fields_of_a_step_read_are_listed() -> None:
    step = ApiCall(
        id="call",
        type="api_call",
        url="https://api.example.com/{{ input.id }}",
        headers={"X-From": "{{ steps.contact.output.email }}"},
        body={"items": "{{ item.x }}"},
    )
    assert dict(list_field_paths(step)) == {
        "url": ("input", "id"),
        "headers": ("steps", "contact", "output", "email"),
        "body": ("item", "x"),
    }
