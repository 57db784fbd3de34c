"""Replies that are read without a model, in every language, and those that are not."""

import pytest

from core.texts import Language
from nodes.onboarding.replies import (
    build_reading_schema,
    detect_reply_language,
    parse_reply,
    parse_reply_without_model,
)
from nodes.onboarding.state import Question


@pytest.mark.parametrize(
    ("reply", "intent"),
    [
        ("skip", "skip"),
        ("Skip this one, please.", "skip"),
        ("Pular", "skip"),
        ("pula essa por favor", "skip"),
        ("Later!", "later"),
        ("not yet", "later"),
        ("Could we do this later?", "later"),
        ("depois", "later"),
        ("Agora não.", "later"),
        ("Podemos ver isso mais tarde?", "later"),
        ("person", "handover"),
        ("I want to talk to a person", "handover"),
        ("Can I speak with a real human?", "handover"),
        ("quero falar com um atendente, por favor", "handover"),
        ("Posso falar com alguém?", "handover"),
        ("Hello", "unclear"),
        ("Oi, bom dia", None),
        ("Bom dia, voltei!", "unclear"),
    ],
)
def test_commands_are_understood_after_every_question(reply: str, intent: str | None) -> None:
    for question in (None, "industry", "company_size", "tour"):
        read = parse_reply(reply, question)
        assert (read.intent if read else None) == intent


@pytest.mark.parametrize(
    "reply",
    [
        "We want customers to talk to a person faster",
        "Somos 120 pessoas",
        "Our agents speak with people all day",
        "We skip tracing for banks",
        "Later this year we open two shops",
        "Gestão de pessoas",
    ],
)
def test_a_business_about_people_is_not_a_command(reply: str) -> None:
    assert parse_reply(reply, "use_case") is None


@pytest.mark.parametrize(
    ("reply", "intent"),
    [
        ("Yes.", "yes"),
        ("it works, thanks", "yes"),
        ("No problem!", "yes"),
        ("sim, por favor", "yes"),
        ("Tudo certo", "yes"),
        ("No", "no"),
        ("It doesn\u2019t work", "no"),
        ("não funciona", "no"),
        ("Sí, gracias", "yes"),
        ("¡Perfecto!", "yes"),
        ("no funciona", "no"),
        ("yes, but the orders come twice", None),
        ("5", "unclear"),
    ],
)
def test_yes_and_no_are_understood_where_they_answer_the_question(reply: str, intent: str | None) -> None:
    read = parse_reply(reply, "connected")
    assert (read.intent if read else None) == intent
    assert parse_reply(reply, "industry") is None


@pytest.mark.parametrize(("reply", "size"), [("50", 50), ("1,200", 1200), ("1.200", 1200), ("0", None)])
def test_a_bare_number_is_a_size(reply: str, size: int | None) -> None:
    read = parse_reply(reply, "team_size")
    assert (read.team_size if read else None) == size


@pytest.mark.parametrize("reply", ["99999999", "1.5", "٣", "1,2,3,4,5", "." * 50, ",", "9" * 60])
def test_a_number_that_is_not_a_size_is_left_to_the_model(reply: str) -> None:
    assert parse_reply(reply, "company_size") is None


def test_nothing_to_connect_skips_the_integrations() -> None:
    for reply in ("none", "No, thanks.", "Nenhuma", "nada", "ninguna, gracias"):
        read = parse_reply(reply, "integration")
        assert read is not None
        assert read.intent == "skip"


@pytest.mark.parametrize(
    ("reply", "question", "expected"),
    [
        ("we are about 40 people", "company_size", {"intent": "information", "company_size": 40}),
        (
            "about fifty people, a tutoring school",
            "company_size",
            {"intent": "information", "company_size": 50},
        ),
        ("umas vinte e cinco pessoas", "team_size", {"intent": "information", "team_size": 25}),
        ("unas cincuenta personas", "company_size", {"intent": "information", "company_size": 50}),
        ("between 50 and 100", "company_size", {"intent": "unclear"}),
        ("50-100", "company_size", {"intent": "unclear"}),
        ("no idea", "company_size", {"intent": "unclear"}),
        ("Online\n retail", "industry", {"intent": "information", "industry": "Online retail"}),
        ("What do you mean?", "industry", {"intent": "question"}),
        ("asdf", "tour", {"intent": "unclear"}),
        ("Yes, it is connected", "connected", {"intent": "yes"}),
        ("sim, consigo", "success", {"intent": "yes"}),
        ("Sí, ya está conectado", "connected", {"intent": "yes"}),
        ("Yes, but it fails", "connected", {"intent": "unclear"}),
        ("Sí, pero falla", "connected", {"intent": "unclear"}),
        ("Yes? How?", "connected", {"intent": "question"}),
        ("hello", None, {"intent": "unclear"}),
    ],
)
def test_without_a_model_a_reply_is_taken_as_it_is(
    reply: str, question: Question | None, expected: dict[str, object]
) -> None:
    assert parse_reply_without_model(reply, question).model_dump(exclude_defaults=True) == expected


def test_the_schema_requires_the_answer_and_allows_no_null() -> None:
    schema = build_reading_schema("team_size").model_json_schema()
    assert schema["required"] == ["intent", "team_size"]
    assert "null" not in str(schema)
    assert "yes" not in schema["properties"]["intent"]["enum"]
    assert (
        "information" not in build_reading_schema("tour").model_json_schema()["properties"]["intent"]["enum"]
    )


@pytest.mark.parametrize(
    ("locale", "reply", "previous", "expected"),
    [
        ("pt-BR", "we are five people", "en", "pt"),
        ("de", "somos cinco pessoas na empresa", "pt", "en"),
        (None, "no", "en", "en"),
        (None, "Shopify", "pt", "pt"),
        (None, "50 50 50", "pt", "pt"),
        (None, "we are the best in town", "pt", "en"),
        (None, "queremos enviar campanhas para os clientes", "en", "pt"),
        (None, "queremos enviar campañas a los clientes", "pt", "es"),
        ("es-MX", "Shopify", "en", "es"),
    ],
)
def test_the_language_of_a_reply(locale: str | None, reply: str, previous: str, expected: str) -> None:
    language: Language = "pt" if previous == "pt" else "en"
    assert detect_reply_language(locale, reply, language) == expected
