"""Nothing personal comes into the audit, wherever in the arguments it stands."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from service.audit.redaction import redact
from tests.support.profiles import examples

FIELDS = st.sampled_from(
    ["contact_id", "id", "path", "team", "severity", "due_at", "text", "metadata", "type", "amount"]
)
NAMES = st.sampled_from(["Ana Lima", "João Souza-Lima", "LauraGomes", "Núria", "O'Neill"])
LOCAL_NUMBERS = st.integers(10**8, 10**11 - 1)
PHONES = st.builds(
    lambda form, number: form.format(number),
    st.sampled_from(["{}", "+55 {}", "c-{}", "tel:{}", "{:_}"]),
    LOCAL_NUMBERS,
)
ADDRESSES = st.builds(
    "{}@{}.com".format, st.sampled_from(["ana", "a.b+c", "joão"]), st.sampled_from(["mail", "x-1"])
)
SECRETS = PHONES | ADDRESSES


def holding(secret: Any) -> st.SearchStrategy[Any]:
    """JSON in which a secret stands somewhere, as a value or as a field's name."""
    harmless = st.one_of(st.none(), st.booleans(), st.integers(-100, 100), st.text(max_size=5))
    return st.recursive(
        st.one_of(st.just(secret), st.just({secret: 1})),
        lambda inner: st.one_of(
            st.tuples(FIELDS, inner, harmless).map(lambda made: {made[0]: made[1], "note": made[2]}),
            st.tuples(harmless, inner).map(list),
        ),
        max_leaves=4,
    )


@settings(max_examples=examples(50), deadline=None)
@given(LOCAL_NUMBERS)
def test_a_number_as_long_as_a_telephone_number_is_removed(number: int) -> None:
    assert redact({"amount": number, "id": float(number)}) == {"amount": "number", "id": "number"}


@settings(max_examples=examples(60), deadline=None)
@given(st.data())
def test_no_address_and_no_number_survives(data: st.DataObject) -> None:
    secret = data.draw(SECRETS)
    spoken = data.draw(st.sampled_from([secret, f"Call {secret} today", f"/contacts/{secret}/profile"]))
    assert secret not in json.dumps(redact(data.draw(holding(spoken))), ensure_ascii=False)


@settings(max_examples=examples(50), deadline=None)
@given(st.data())
def test_no_name_survives_outside_of_closed_vocabularies(data: st.DataObject) -> None:
    name = data.draw(NAMES)
    said = redact({"contact_id": name, "text": f"Dear {name}", "body": [{"to": name}], name: 1})
    assert name not in json.dumps(said, ensure_ascii=False)


@given(
    st.recursive(
        st.none() | st.floats() | st.text(max_size=9),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=9,
    )
)
@settings(max_examples=examples(50), deadline=None)
def test_redacted_values_are_json_and_can_be_redacted_again(value: Any) -> None:
    kept = json.dumps(redact(value), allow_nan=False)
    assert json.dumps(redact(json.loads(kept)), allow_nan=False)


def test_what_an_auditor_needs_is_kept() -> None:
    assert redact(
        {
            "path": "/contacts/550e8400-e29b-41d4-a716-446655440000/follow-ups",
            "contact_id": "550e8400-e29b-41d4-a716-446655440000",
            "opportunity_id": "opp-42",
            "severity": "critical",
            "due_at": "2026-03-01T09:00:00+00:00",
            "amount": 48_000.5,
            "from_me": True,
            "text": "x" * 100,
            "title": "Export fails",
        }
    ) == {
        "path": "/contacts/550e8400-e29b-41d4-a716-446655440000/follow-ups",
        "contact_id": "550e8400-e29b-41d4-a716-446655440000",
        "opportunity_id": "opp-42",
        "severity": "critical",
        "due_at": "2026-03-01T09:00:00+00:00",
        "amount": 48_000.5,
        "from_me": True,
        "text": {"characters": 100, "sha256": "09ecb6ebc8bcefc7"},
        "title": {"characters": 12},
    }
