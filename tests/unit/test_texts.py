"""The language of a customer's message."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.texts import LANGUAGES, Language, detect_language, format_date

MESSAGES: dict[Language, tuple[str, ...]] = {
    "en": (
        "hello",
        "thanks!",
        "where's my order?",
        "My e-mail is joao@example.com.br",
        "I can't log in",
        "Do you ship to São Paulo?",
        "please call me back",
        "invoice 1029",
        "is there anybody?",
        "It doesn't work",
        "cancel my subscription",
    ),
    "pt": (
        "olá",
        "obrigado",
        "onde está meu pedido?",
        "nao consigo entrar",
        "cadê o boleto",
        "quero cancelar",
        "bom dia",
        "me ajuda por favor, ninguém responde",
        "qual o valor da fatura INV-2026-1029",
        "a exportação falhou",
        "minha senha nao funciona",
        "tem alguém aí?",
    ),
    "es": (
        "hola",
        "gracias",
        "¿dónde está mi pedido?",
        "no puedo entrar",
        "buenos dias",
        "necesito ayuda por favor",
        "quiero cancelar",
        "cual es el importe de la factura INV-2026-1029",
        "la exportacion ha fallado",
        "mi contraseña no funciona",
        "¿hay alguien?",
        "muchas gracias, adiós",
    ),
}


@pytest.mark.parametrize(
    ("text", "language"), [(text, language) for language, texts in MESSAGES.items() for text in texts]
)
def test_a_short_message_shows_its_language(text: str, language: Language) -> None:
    assert detect_language(text) == language


@pytest.mark.parametrize(
    ("locale", "language"),
    [("en", "en"), ("pt-BR", "pt"), ("es-MX", "es"), ("ES", "es"), ("de-AT", "en"), ("est", "en")],
)
def test_a_locale_decides_whatever_the_text_says(locale: str, language: Language) -> None:
    for texts in MESSAGES.values():
        assert detect_language(texts[0], locale) == language


@given(default=st.sampled_from(LANGUAGES), text=st.text(alphabet="0123456789 .,;-@/", max_size=40))
def test_what_shows_no_language_keeps_the_one_before(default: Language, text: str) -> None:
    assert detect_language(text, default=default) == default


def test_a_word_of_two_languages_does_not_change_the_language() -> None:
    for language in ("pt", "es"):
        assert detect_language("de cliente", default=language) == language


def test_a_date_reads_as_people_write_it() -> None:
    day = date(2026, 3, 7)
    written = [format_date(day, language) for language in LANGUAGES]
    assert written == ["7 March 2026", "7 de março de 2026", "7 de marzo de 2026"]
