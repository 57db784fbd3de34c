"""The choice of a note's type by its words."""

import pytest

from core.memory import NoteType, choose_note_type


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Promised a call back from the billing team on Friday.", "shared"),
        ("Prometemos o reembolso até sexta.", "shared"),
        ("Avisar al equipo de ventas.", "shared"),
        # Who needs it comes before how long it is useful.
        ("Tell the team: prefers e-mail.", "shared"),
        ("Prefers calls in the morning.", "long_term"),
        ("Gosta de respostas curtas.", "long_term"),
        ("Siempre paga con tarjeta.", "long_term"),
        ("Looks for the file right now.", "short_term"),
        ("Pediu um momento para achar a nota.", "short_term"),
        ("Asked for the log of the export.", "working"),
        ("O boleto foi enviado duas vezes.", "working"),
        # Words that only contain those of a rule.
        ("The steam engine is unlikely to fit.", "working"),
    ],
)
def test_who_needs_a_note_and_how_long_it_is_useful_decide(text: str, kind: NoteType) -> None:
    choice = choose_note_type(text)
    assert choice.type == kind, choice
    assert choice.reason
