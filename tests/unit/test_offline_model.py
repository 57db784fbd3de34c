"""What a user of the offline model notices: tools chosen by the message, answers quoted from results."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import BaseTool, tool
from pydantic import BaseModel, Field, field_validator

from core.offline import OFFLINE_MODEL_NAME, OfflineChatModel


@tool
def search_articles(query: str, limit: int = 5) -> str:
    """Search the help articles for known problems and how-tos. Use it first when a customer has a problem."""
    return f"{query} {limit}"


@tool
def get_orders() -> str:
    """Look up the orders of the customer: where each delivery is."""
    return ""


@tool
def get_account() -> str:
    """Look up the customer's plan, its limits and its renewal."""
    return ""


@tool
def send_answer(answer: str) -> str:
    """Send the customer the answer, once the problem is diagnosed."""
    return answer


@tool
def schedule_meeting(contact_id: str, date: str, subject: str) -> str:
    """Schedule a meeting with a contact."""
    return f"{contact_id} {date} {subject}"


@tool
def hand_over_to_human(team: Literal["support", "billing", "legal"], reason: str, summary: str) -> str:
    """Hand the conversation over to a person of a team."""
    return f"{team} {reason} {summary}"


TOOLS = (search_articles, get_orders, get_account, send_answer, hand_over_to_human)
ARTICLES = [
    {
        "title": "Calendar sync stops",
        "body": "Sync runs every hour. Calendar sync stops when the token is older than 90 days. "
        "The customer must reconnect the calendar under Integrations. "
        "The connection can be tested there at any time, and the result is shown next to its name.",
    },
    {
        "title": "Printing labels",
        "body": "Labels are printed from the order page on any printer that the operating system knows. "
        "Choose the size of the paper first, then the number of copies, and press Print at the end.",
    },
]
ORDERS = [
    {"id": "ORD-71", "item": "Large desk", "status": "delayed", "placed_at": "2026-11-02T16:00:00Z"},
    {"id": "ORD-72", "item": "Small lamp", "status": "delivered", "placed_at": "2026-09-08T14:30:00Z"},
]
ACCOUNT = {
    "plan": "Pro",
    "status": "trialing",
    "renews_on": "2026-11-23",
    "usage": {"contacts": {"used": 48_500, "limit": 50_000}},
}
RESULTS: Mapping[str, Any] = {
    "search_articles": ARTICLES,
    "get_orders": ORDERS,
    "get_account": ACCOUNT,
    "send_answer": {"sent": True},
    "hand_over_to_human": {"team": "support"},
}
NOTHING: Mapping[str, Any] = {**RESULTS, "search_articles": [], "get_orders": [], "get_account": {}}


class Reflection(BaseModel):
    success: bool
    reasoning: str
    task_complete: bool
    suggested_next_action: str | None = None
    final_answer: str | None = None


def converse(
    task: str,
    tools: Sequence[BaseTool] = TOOLS,
    results: Mapping[str, Any] = RESULTS,
    *,
    failing: Sequence[str] = (),
    before: Sequence[BaseMessage] = (),
) -> list[BaseMessage]:
    """Run the model with scripted tool results until it replies without calls."""
    model = OfflineChatModel().bind_tools(list(tools))
    messages: list[BaseMessage] = [*before, HumanMessage(task)]
    for _ in range(10):
        reply = model.invoke(messages)
        messages.append(reply)
        if not reply.tool_calls:
            return messages
        for call in reply.tool_calls:
            fails = call["name"] in failing
            content = "the service is unavailable" if fails else json.dumps(results.get(call["name"], {}))
            status: Literal["error", "success"] = "error" if fails else "success"
            messages.append(ToolMessage(content, tool_call_id=call["id"], name=call["name"], status=status))
    pytest.fail("the model never came to an answer")


def called(messages: Sequence[BaseMessage]) -> list[str]:
    return [call["name"] for each in messages if isinstance(each, AIMessage) for call in each.tool_calls]


def arguments(messages: Sequence[BaseMessage], name: str) -> dict[str, Any]:
    calls = [call for each in messages if isinstance(each, AIMessage) for call in each.tool_calls]
    return next(call["args"] for call in calls if call["name"] == name)


def test_the_companys_notes_on_a_deal_are_not_read_out_to_the_customer() -> None:
    @tool
    def get_opportunities() -> str:
        """Look up the deals with the customer: plan, value, stage and renewal."""
        return ""

    notes = [
        {"id": "OPP-1", "title": "Plan Pro", "stage": "closed_won", "close_reason": "They hate the rest"}
    ]
    task = "Which plan do I have and when does it renew?"
    messages = converse(task, (get_opportunities, hand_over_to_human), {"get_opportunities": notes})
    assert "get_opportunities" in called(messages)
    assert "OPP-1" not in messages[-1].text
    assert "hate" not in messages[-1].text


@pytest.mark.parametrize(
    "message",
    [
        "You charged me double, I want my money back.",
        "Fui cobrado duas vezes este mês!",
        "Me han cobrado dos veces.",
    ],
)
def test_money_that_is_claimed_back_is_a_case_for_a_person(message: str) -> None:
    assert "hand_over_to_human" in called(converse(message))


def test_the_metadata_says_that_it_is_no_language_model() -> None:
    reply = OfflineChatModel().invoke("Hello")
    assert reply.response_metadata["model_name"] == OFFLINE_MODEL_NAME
    assert reply.response_metadata["is_language_model"] is False
    assert reply.usage_metadata is not None
    assert reply.usage_metadata["output_tokens"] > 0


@pytest.mark.parametrize(
    ("message", "answer"),
    [
        ("hi", "Hello! How can I help you?"),
        ("Oi, tudo bem?", "Olá! Como posso ajudar?"),
        ("Hola, buenos días", "¡Hola! ¿En qué puedo ayudarle?"),
        ("thanks, bye!", "You're welcome! Goodbye, and have a good day!"),
        ("Muito obrigada", "De nada!"),
        ("Gracias", "¡De nada!"),
    ],
)
def test_small_talk_is_answered_in_its_language_without_a_tool(message: str, answer: str) -> None:
    messages = converse(message)
    assert messages[-1].text == answer
    assert called(messages) == []


@pytest.mark.parametrize("message", ["Write a poem about the sea", "What is the capital of France?"])
def test_what_it_cannot_do_is_said_in_the_metadata_for_the_caller(message: str) -> None:
    reply = OfflineChatModel().invoke(message)
    assert reply.response_metadata["unable"] is True
    assert "GOOGLE_API_KEY" not in reply.text


@pytest.mark.parametrize(
    ("task", "wanted", "unwanted"),
    [
        ("Where is my order ORD-71?", "Large desk (ORD-71): delayed", "lamp"),
        ("Has the small lamp arrived?", "Small lamp (ORD-72): delivered", "desk"),
        ("What about the order of September?", "ORD-72", "ORD-71"),
        ("Cadê meu pedido ORD-71?", "Large desk (ORD-71): atrasado", "lamp"),
        ("¿Dónde está mi pedido ORD-72?", "Small lamp (ORD-72): entregado", "desk"),
        ("Which of my orders was delayed?", "ORD-71", "ORD-72"),
    ],
)
def test_the_record_that_the_message_is_about_is_described(task: str, wanted: str, unwanted: str) -> None:
    messages = converse(task)
    assert wanted in messages[-1].text
    assert unwanted not in messages[-1].text
    assert "get_orders" in called(messages)


def test_a_number_that_no_record_has_is_said_not_to_be_found() -> None:
    assert "I cannot find ORD-99" in converse("Where is my order ORD-99?")[-1].text


def test_a_month_without_a_record_is_said_and_what_there_is_is_listed() -> None:
    answer = converse("Where is my order of June?")[-1].text
    assert "nothing dated June" in answer
    assert "ORD-71" in answer


def test_several_records_are_listed_where_the_message_names_none() -> None:
    answer = converse("Where are my orders?")[-1].text
    assert "which one do you mean" in answer
    assert "ORD-71" in answer
    assert "ORD-72" in answer


@pytest.mark.parametrize(
    ("task", "wanted"),
    [
        ("Which plan am I on?", "Plan: Pro"),
        ("When does my trial end?", "Trial ends on: 23 November 2026"),
        ("Quando termina meu período de teste?", "23 de novembro de 2026"),
        ("How many of my contacts are used?", "48,500 of 50,000"),
    ],
)
def test_plan_limits_and_trial_end_are_stated_from_the_account(task: str, wanted: str) -> None:
    assert wanted in converse(task)[-1].text


def test_the_best_passage_is_quoted_with_its_title() -> None:
    messages = converse("My calendar sync fails with an error since yesterday, what do I do?")
    assert "“Calendar sync stops”" in messages[-1].text
    assert "must reconnect the calendar" in messages[-1].text
    assert "Printing" not in messages[-1].text
    assert "send_answer" not in called(messages)


@pytest.mark.parametrize(
    ("task", "announced"),
    [
        ("¿Cómo conecto el calendario otra vez?", "«Calendar sync stops», que está en inglés:"),
        ("Como conecto o calendário outra vez?", "“Calendar sync stops”, que está em inglês:"),
    ],
)
def test_an_article_in_another_language_is_found_and_announced_as_such(task: str, announced: str) -> None:
    messages = converse(task)
    assert "connect" in arguments(messages, "search_articles")["query"].split()
    assert announced in messages[-1].text
    assert "must reconnect the calendar" in messages[-1].text


def test_a_statement_that_shares_one_word_with_an_article_is_not_answered_with_it() -> None:
    assert "Printing" not in converse("We label our wines by hand.")[-1].text


@pytest.mark.parametrize("found_by", ["meaning", "words"])
@pytest.mark.parametrize("message", ["Something failed.", "I have an error!", "¿Por qué me sale un error?"])
def test_that_something_fails_is_no_reason_to_quote_the_first_article(message: str, found_by: str) -> None:
    articles = [{**ARTICLES[0], "found_by": found_by, "title": "Calendar sync fails with an error"}]
    messages = converse(message, results={**NOTHING, "search_articles": articles})
    assert "Calendar" not in messages[-1].text
    assert called(messages)[-1] == "hand_over_to_human"


@pytest.mark.parametrize(("found_by", "is_quoted"), [("meaning", True), ("words", False)])
def test_one_shared_word_is_enough_only_where_the_search_knows_meanings(
    found_by: str, is_quoted: bool
) -> None:
    articles = [{**ARTICLES[1], "found_by": found_by}]
    messages = converse("How many copies may we sell?", results={**NOTHING, "search_articles": articles})
    assert ("Printing labels" in messages[-1].text) is is_quoted
    assert ("hand_over_to_human" in called(messages)) is not is_quoted


def test_an_article_that_was_found_by_words_is_quoted_where_its_title_names_all_that_is_asked() -> None:
    articles = [{**ARTICLES[1], "found_by": "words"}, {**ARTICLES[0], "found_by": "words"}]
    messages = converse("Calendar fails.", results={**NOTHING, "search_articles": articles})
    assert "“Calendar sync stops”" in messages[-1].text


def test_a_colleagues_request_to_resolve_a_case_sends_the_customer_the_solution() -> None:
    messages = converse("The customer reports that calendar sync fails with an error. Help to resolve it.")
    assert "must reconnect the calendar" in arguments(messages, "send_answer")["answer"]
    assert called(messages).count("send_answer") == 1


@pytest.mark.parametrize(
    ("task", "team"),
    [
        ("I want a refund for the last charge", "billing"),
        ("Quero falar com um atendente", "support"),
        ("Quiero hablar con un responsable", "support"),
        ("Please delete all my personal data", "legal"),
        ("Our customer data has leaked", "legal"),
    ],
)
def test_what_only_a_person_can_do_is_handed_over_and_only_then_promised(task: str, team: str) -> None:
    messages = converse(task, results=NOTHING)
    assert arguments(messages, "hand_over_to_human")["team"] == team
    assert called(messages).count("hand_over_to_human") == 1


def test_how_something_is_done_is_a_question_and_no_request_for_a_person() -> None:
    messages = converse("How do I cancel the calendar sync?")
    assert "hand_over_to_human" not in called(messages)
    assert "Calendar sync stops" in messages[-1].text


def test_without_an_answer_the_conversation_is_handed_over() -> None:
    messages = converse("The quantum flux widget blinks purple", results=NOTHING)
    assert called(messages)[-1] == "hand_over_to_human"
    assert "A colleague will get back to you" in messages[-1].text


def test_without_an_answer_and_without_a_person_it_says_so_and_promises_nothing() -> None:
    messages = converse("The quantum flux widget blinks purple", [search_articles], NOTHING)
    assert messages[-1].text == "I cannot answer this myself."
    assert messages[-1].response_metadata["unable"] is True


def test_a_tool_that_is_unavailable_is_not_taken_for_an_empty_answer() -> None:
    messages = converse("Where is my order ORD-71?", [get_orders], failing=["get_orders"])
    assert messages[-1].text == "I could not look this up just now."


def test_a_follow_up_is_understood_with_the_message_before_it() -> None:
    before = [HumanMessage("Where is my order ORD-71?"), AIMessage("It is delayed.")]
    answer = converse("And the one of September?", before=before)[-1].text
    assert "ORD-72" in answer


def test_a_call_whose_arguments_nobody_gave_is_not_made() -> None:
    assert called(converse("Schedule a meeting about the renewal.", [schedule_meeting])) == []


def test_notes_of_a_graph_are_not_taken_for_the_task() -> None:
    messages = [
        HumanMessage("Where is my order ORD-71?"),
        HumanMessage("[Background] the invoice was checked"),
    ]
    reply = OfflineChatModel().bind_tools(list(TOOLS)).invoke(messages)
    assert [call["name"] for call in reply.tool_calls] == ["get_orders"]


def test_an_article_in_a_note_is_quoted_without_a_tool() -> None:
    note = (
        f"[Help articles that were found]\n1. search_articles(): Calendar sync stops. {ARTICLES[0]['body']}"
    )
    reply = OfflineChatModel().invoke([HumanMessage("How does the calendar sync work?"), HumanMessage(note)])
    assert "reconnect the calendar" in reply.text


def test_a_required_choice_forces_a_call() -> None:
    model = OfflineChatModel()
    assert model.bind_tools(list(TOOLS), tool_choice="any").invoke("hello").tool_calls
    named = model.bind_tools(list(TOOLS), tool_choice="get_account").invoke("hello")
    assert [call["name"] for call in named.tool_calls] == ["get_account"]
    assert not model.bind_tools(list(TOOLS), tool_choice="none").invoke("Where is ORD-71?").tool_calls


def test_call_ids_differ_between_turns_and_no_call_is_repeated() -> None:
    messages = converse("My calendar sync fails with an error. Where is my order ORD-71?", results=NOTHING)
    calls = [call for each in messages if isinstance(each, AIMessage) for call in each.tool_calls]
    assert len({call["id"] for call in calls}) == len(calls)
    assert len({f"{call['name']}{call['args']}" for call in calls}) == len(calls)


@pytest.mark.parametrize(("failing", "success"), [((), True), (("get_orders",), False)])
def test_a_reflection_reports_whether_the_last_step_failed(failing: Sequence[str], success: bool) -> None:
    messages = converse("Where is my order ORD-71?", [get_orders], failing=failing)[:3]
    reflection = OfflineChatModel().with_structured_output(Reflection).invoke(messages)
    assert isinstance(reflection, Reflection)
    assert reflection.success is success
    assert "get_orders" in reflection.reasoning
    assert not reflection.task_complete
    assert reflection.final_answer is None


def test_a_reflection_is_complete_once_a_person_was_told() -> None:
    messages = converse("I want to speak to your manager", results=NOTHING)[:-1]
    reflection = OfflineChatModel().with_structured_output(Reflection).invoke(messages)
    assert isinstance(reflection, Reflection)
    assert reflection.task_complete
    assert reflection.final_answer is not None
    assert "A colleague will get back to you" in reflection.final_answer


class Impossible(BaseModel):
    code: str = Field(min_length=1)

    @field_validator("code")
    @classmethod
    def _never(cls, value: str) -> str:
        raise ValueError(f"{value!r} is refused")


def test_include_raw_returns_the_error_where_nothing_fits() -> None:
    reply = OfflineChatModel().with_structured_output(Impossible, include_raw=True).invoke("hi")
    assert isinstance(reply, dict)
    assert reply["parsed"] is None
    assert reply["parsing_error"] is not None
    assert reply["raw"].tool_calls


async def test_tokens_leave_one_by_one_and_reach_callbacks() -> None:
    task = "How does the calendar sync work?"
    seen: list[str] = []

    class Listener(BaseCallbackHandler):
        def on_llm_new_token(self, token: str | list[str | dict[str, Any]], **_: Any) -> None:
            seen.append(str(token))

    pieces = [
        each.text async for each in OfflineChatModel().astream(task, config={"callbacks": [Listener()]})
    ]
    assert len([piece for piece in pieces if piece]) > 3
    assert "".join(pieces) == "".join(seen) == OfflineChatModel().invoke(task).text


async def test_async_and_sync_replies_are_the_same() -> None:
    model = OfflineChatModel().bind_tools(list(TOOLS))
    one, other = model.invoke("Where is ORD-71?"), await model.ainvoke("Where is ORD-71?")
    assert (one.content, one.tool_calls) == (other.content, other.tool_calls)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "   ",
        "\ud800 broken",
        "a" * 100_000,
        "\x00\x01",
        "🙂" * 50,
        [{"type": "text", "text": "hello there"}],
    ],
)
def test_any_content_gets_a_reply(content: Any) -> None:
    assert OfflineChatModel().bind_tools(list(TOOLS)).invoke([HumanMessage(content)]) is not None


def test_an_empty_conversation_gets_a_reply() -> None:
    assert OfflineChatModel().invoke([SystemMessage("Be kind.")]).text


@pytest.mark.parametrize("parameters", [{}, {"type": "object"}, {"type": "object", "properties": {}}])
def test_tools_without_parameters_can_be_called(parameters: dict[str, Any]) -> None:
    bare = {"name": "get_calendar_state", "description": "", "parameters": parameters}
    reply = (
        OfflineChatModel().bind_tools([{"type": "function", "function": bare}]).invoke("How is the calendar?")
    )
    assert [call["args"] for call in reply.tool_calls] == [{}]


@pytest.mark.parametrize(("iteration", "tool"), [(2, "search_articles"), (5, "hand_over_to_human")])
def test_what_was_searched_in_vain_and_is_no_longer_shown_is_not_searched_again(
    iteration: int, tool: str
) -> None:
    # Early steps of a long run are a line each in its notes, without their calls.
    asked = [
        HumanMessage("My calendar sync shows an error."),
        HumanMessage(f"[Iteration {iteration} of at most 10]"),
    ]
    reply = OfflineChatModel().bind_tools(list(TOOLS)).invoke(asked)
    assert isinstance(reply, AIMessage)
    assert reply.tool_calls[0]["name"] == tool
