"""Whatever a model writes: placeholders are found and nothing else is, and the message is freed whole."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.provisional import urls

from core.placeholders import find_placeholders
from nodes.critique_refine.judgements import (
    Review,
    Verdict,
    build_critique,
    build_validation,
    build_version,
    get_critique,
    select_best,
)
from nodes.critique_refine.message_text import (
    MAX_CHARACTERS,
    MIN_CHARACTERS,
    extract_message,
    find_issues,
)
from nodes.critique_refine.state import Critique, Scores, Validation, Version

# Placeholders

SENTENCES = st.sampled_from(
    [
        "Hello Laura,",
        "Prezado Rafael,",
        "Your plan renews soon.",
        "Seu plano renova em breve.",
        "Vale para TODO MUNDO, em TODO o Brasil e o ano TODO!",
        "Todo mês você recebe o resumo.",
        "We added your name and your company to the list.",
        "Precisamos do nome do cliente e da data.",
        "Please send us the company name and your first name.",
        "É a edição XX, do século XIX ao XXI.",
        "It is for everyone who loves us <3 and if usage < 80 and growth > 20, call us.",
        "From <R$ 50 to >R$ 20, or <50 users and >20.",
        "That is **important** and _new_ -> see below.",
        "<b>Important</b><br/>",
        "Use the route `GET /contacts/{id}/tickets` and the key `data['name']`.",
        "As she said: 'it works [sic]' [...]",
        "- [x] import\n- [ ] export",
        "Above\n_____\nbelow",
        "Your card ends in XXXX XXXX XXXX 4242, your CPF is XXX.456.789-XX.",
        "We answered in [TKT-2031], see [1] and [ticket 4521], at [12:30].",
        "See [our guide][1] and the manual [PDF].",
        "100% of you and 20 % of them.",
    ]
)
PRICES = st.builds(
    "{}{}{}".format,
    st.sampled_from(["R$ ", "R$", "$", "US$ ", "€", "£ ", "<$", "> R$ "]),
    st.sampled_from(["0,99", "1.234,56", "19.99", "1,200", "50", "100.000,00"]),
    st.sampled_from(["", "/mês", "/month", " + VAT", "*", "%"]),
)
E_MAILS = st.builds(
    "{}@{}".format,
    st.from_regex(r"[a-z]([a-z0-9._+'-]{0,12}[a-z0-9])?", fullmatch=True),
    st.from_regex(r"([a-z0-9][a-z0-9-]{0,8}\.){1,3}(com|com\.br|example|xxx)", fullmatch=True),
)
URLS = urls() | st.sampled_from(
    [
        "https://example.com/a?filter[name]=x&page[size]=2",
        "http://[2001:db8::1]:8080/status",
        "www.xxx.example/todo",
        "https://example.com/xxx/TODO/~a_b",
        "https://pt.wikipedia.org/wiki/CRM_(software)",
    ]
)
LINKS = st.builds(
    "{}[{}]({})".format,
    st.sampled_from(["", "!"]),
    st.sampled_from(["click here", "clique aqui", "Customer Name", "o seu plano", "link"]),
    st.sampled_from(
        ["https://example.com/x_y", "mailto:a@b.example", "/help#export", "example.com", "tel:+551155500117"]
    ),
)
MARKED = st.one_of(
    E_MAILS.map("<{}>".format), URLS.filter(lambda url: ">" not in url).map("<{}>".format), LINKS
)
INNOCENT = st.lists(st.one_of(SENTENCES, PRICES, E_MAILS, URLS, MARKED), max_size=6).flatmap(
    lambda parts: st.sampled_from([" ", "\n", "\n\n"]).map(lambda between: between.join(parts))
)

NAMES = st.sampled_from(
    [
        "Customer Name", "customer_name", "First Name", "Your Name", "Company", "insert date here", "link",
        "X", "Nome do Cliente", "nome_cliente", "Seu Nome", "sua empresa", "valor da fatura", "data",
        "telefone", "Nome 1", "Produto 2", "endereço",
    ]
)  # fmt: skip
WRAPPED = st.builds(
    lambda form, name: form.replace("…", name),
    st.sampled_from(["[…]", "{{…}}", "{{ … }}", "{…}", "${…}", "<…>", "[[…]]", "<<…>>", "{%…%}"]),
    NAMES,
)
OTHERS = st.sampled_from(
    [
        "XXX", "xxxx", "XX/XX/XXXX", "R$ XXX,XX", "R$ XX,XX", "R$ X", "$XX", "XX%", "(11) XXXXX-XXXX",
        "Valor: TODO", "Price: TODO.", "TODO: add the price", "FIXME", "Lorem ipsum dolor", "%NOME%",
        "%CUSTOMER_NAME%", "valor de R$ ____ hoje", "[____]", "https://example.com/{{id}}",
        "https://[your-domain].com", "https://example.com/[id]", "[clique aqui](link)", "Dear Customer Name,",
        "Olá, Nome do Cliente!", "Best regards,\nYour Name", "Atenciosamente,\nNome da Empresa",
    ]
)  # fmt: skip


@given(INNOCENT)
def test_addresses_links_prices_code_and_references_are_no_placeholders(text: str) -> None:
    assert find_placeholders(text) == []


@given(INNOCENT, WRAPPED | OTHERS, INNOCENT)
def test_a_placeholder_is_found_wherever_it_stands(before: str, open_place: str, after: str) -> None:
    found = find_placeholders(f"{before}\n{open_place}\n{after}")
    assert found
    assert all(each in open_place for each in found)


@given(INNOCENT, WRAPPED)
def test_a_placeholder_is_found_within_a_sentence(before: str, open_place: str) -> None:
    assert find_placeholders(f"{before} e por isso {open_place}, como combinado.")


@given(st.text(alphabet=st.characters() | st.sampled_from("[]{}<>()%_xX*`@. \n"), max_size=300))
def test_any_text_can_be_checked_and_what_is_found_is_in_it(text: str) -> None:
    assert all(each in text for each in find_placeholders(text))
    assert bool(find_issues(text)) >= (not MIN_CHARACTERS <= len(text) <= MAX_CHARACTERS)


def measure_check(text: str) -> float:
    """Return the least CPU seconds of five checks of a text."""

    def measure() -> float:
        start = time.thread_time()
        find_placeholders(text)
        extract_message(text)
        return time.thread_time() - start

    return min(measure() for _ in range(5))


REPEATED = [
    "[", "{{", "<a", "x.", "x,", "XXXX-", "`", "```", "a@", "a.a", "www.", "[a](", "_", "TODO,", "*", "](",
    "'", "Hi, ", "Best\n", "http://[a", "\n",
]  # fmt: skip


@pytest.mark.parametrize("piece", REPEATED)
def test_the_time_of_a_check_grows_linearly_with_the_text(piece: str) -> None:
    seconds, seconds_of_longer = (
        measure_check(piece * (length // len(piece))) for length in (25_000, 100_000)
    )
    # Linear growth is 4 times, quadratic growth 16 times. Below 2 ms the clock is too coarse to compare.
    assert seconds_of_longer < 10 * max(seconds, 0.002)


# The message alone

MESSAGES = st.lists(
    st.sampled_from(["Hello Laura,", "Seu plano renova em breve.", "It's fine — call us.", "- one\n- two"]),
    min_size=1,
    max_size=4,
).map("\n\n".join)
WRAPPINGS = st.sampled_from(
    [
        "```\n…\n```",
        "```markdown\n…\n```",
        "~~~text\n\n…\n~~~",
        '"…"',
        "“…”",
        "«…»",
        "Subject: Your plan\n\n…",
        "**Assunto:** Seu plano\n…",
        "Message:\n…",
        "**Mensagem:** …",
        "Here's the improved message:\n\n…",
        "Sure! Here is the message:\n…",
        "Claro! Aqui está a mensagem revisada:\n\n…",
        "Segue a nova versão:\n…",
        "\n  …\n\n",
    ]
)


@given(MESSAGES, st.lists(WRAPPINGS, max_size=3))
def test_a_message_is_extracted_from_any_wrapping(message: str, wrappings: list[str]) -> None:
    reply = message
    for wrapping in wrappings:
        reply = wrapping.replace("…", reply)
    # The same marks within each other could be those of two quotations, or of two blocks.
    marks = [each[0] for each in wrappings if each[0] in '"“«`~']
    if len(set(marks)) == len(marks):
        assert extract_message(reply) == message


@given(INNOCENT)
def test_a_message_that_is_not_wrapped_stays_as_it_is(message: str) -> None:
    text = f"Hello Laura,\n{message}\nBest regards"
    assert extract_message(text) == text


@pytest.mark.parametrize(
    "message",
    [
        '"Exports" are now called "Downloads"',
        "'Exports' is what it's called, and not 'Downloads'",
        "```\nfirst\n```\nand\n```\nsecond\n```",
        "Here is what we found in your message, Laura: nothing is lost.",
        "Subjects: three of them were new to you.",
    ],
)
def test_marks_that_belong_to_the_message_stay(message: str) -> None:
    assert extract_message(message) == message


@given(st.text(alphabet=st.characters() | st.sampled_from("\"'`~*#: \n"), max_size=200))
def test_extracting_a_message_twice_changes_nothing(reply: str) -> None:
    text = extract_message(reply)
    assert extract_message(text) == text
    assert text == text.strip()


# The best version

POINTS = st.integers(0, 25)
CRITIQUES = st.builds(
    Review,
    strengths=st.lists(st.text(max_size=5), max_size=2),
    weaknesses=st.lists(st.text(max_size=5), max_size=2),
    improvements=st.lists(st.text(max_size=5), max_size=2),
    personalization_score=POINTS,
    clarity_score=POINTS,
    tone_score=POINTS,
    effectiveness_score=POINTS,
).map(build_critique)
VALIDATIONS = st.builds(
    Verdict, issues=st.lists(st.text(max_size=3), max_size=1), approved=st.booleans()
).map(build_validation)


@given(CRITIQUES)
def test_the_total_is_the_sum_of_the_points(critique: Critique) -> None:
    scores: Scores = critique["scores"]
    assert critique["total"] == sum(value for value in scores.values() if isinstance(value, int))
    assert 0 <= critique["total"] <= 100
    assert all(each.strip() for each in critique["strengths"])


@given(VALIDATIONS)
def test_a_verdict_either_approves_or_says_why_not(validation: Validation) -> None:
    assert validation["approved"] is not bool(validation["issues"])


@given(st.lists(st.tuples(st.none() | CRITIQUES, st.none() | VALIDATIONS), max_size=5))
def test_the_best_version_may_be_sent_if_any_may_and_scores_highest_of_those(
    judged: list[tuple[Critique | None, Validation | None]],
) -> None:
    history = [build_version(f"text {cycle}", cycle, *each) for cycle, each in enumerate(judged)]
    chosen = select_best(history)
    if chosen is None:
        assert history == []
        return
    assert get_critique(chosen) == judged[chosen["cycle"]][0]
    rivals = [each for each in history if approved(each)] or history
    assert chosen in rivals
    totals = [total(each) for each in rivals]
    assert total(chosen) == max(totals)
    assert chosen["cycle"] == max(each["cycle"] for each in rivals if total(each) == max(totals))


def approved(judged: Version) -> bool:
    return judged["validation"] is not None and judged["validation"]["approved"]


def total(judged: Version) -> int:
    return -1 if judged["total"] is None else judged["total"]
