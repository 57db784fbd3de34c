"""What a user of the offline model notices: tools chosen by the task, answers quoted from their results."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypedDict

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
def find_older_cases(query: str) -> str:
    """Find the customer's earlier cases and how they were resolved."""
    return query


@tool
def get_account() -> str:
    """Look up the customer's plan and its limits, to diagnose problems."""
    return ""


@tool
def open_ticket(title: str, description: str, severity: Literal["low", "medium", "high", "critical"]) -> str:
    """Report a defect to engineering that support cannot resolve."""
    return f"{title} {description} {severity}"


@tool
def send_answer(answer: str) -> str:
    """Send the customer the answer, once the problem is diagnosed."""
    return answer


@tool
def update_deal(deal_id: str, stage: Literal["open", "won", "lost"], amount: float | None = None) -> str:
    """Update a deal's stage or amount."""
    return f"{deal_id} {stage} {amount}"


@tool
def schedule_meeting(contact_id: str, date: str, subject: str) -> str:
    """Schedule a meeting with a contact."""
    return f"{contact_id} {date} {subject}"


SUPPORT = (search_articles, find_older_cases, get_account, open_ticket, send_answer)
TASK = "Calendar sync fails with code 4031 since yesterday. Please help to resolve it."
ARTICLE = {
    "articles": [
        {
            "id": "A-1",
            "title": "Calendar sync stops",
            "body": "Sync runs every hour. Calendar sync stops when the token is older than 90 days. "
            "The customer must reconnect the calendar under Integrations.",
        },
        {
            "id": "A-2",
            "title": "Printing labels",
            "body": "Labels are printed from the order page on any printer.",
        },
    ]
}
FOUND: Mapping[str, Any] = {
    "search_articles": ARTICLE,
    "find_older_cases": {"cases": []},
    "get_account": {"plan": "Team", "calendar": {"token_age_days": 120}},
    "send_answer": {"success": True},
    "open_ticket": {"success": True, "ticket_id": "E-7"},
}
EMPTY: Mapping[str, Any] = {**FOUND, "search_articles": {"articles": []}, "get_account": {}}


class Reflection(BaseModel):
    success: bool
    reasoning: str
    task_complete: bool
    suggested_next_action: str | None = None
    final_answer: str | None = None


def converse(
    task: str, tools: Sequence[BaseTool], results: Mapping[str, Any], *, failing: Sequence[str] = ()
) -> list[BaseMessage]:
    """Run the model with scripted tool results until it replies without calls."""
    model = OfflineChatModel().bind_tools(list(tools))
    messages: list[BaseMessage] = [HumanMessage(task)]
    for _ in range(10):
        reply = model.invoke(messages)
        messages.append(reply)
        if not reply.tool_calls:
            return messages
        for call in reply.tool_calls:
            fails = call["name"] in failing
            content = (
                "Error: the service is unavailable" if fails else json.dumps(results.get(call["name"], {}))
            )
            status: Literal["error", "success"] = "error" if fails else "success"
            messages.append(ToolMessage(content, tool_call_id=call["id"], name=call["name"], status=status))
    pytest.fail("the model never came to an answer")


def calls_of(messages: Sequence[BaseMessage]) -> list[list[str]]:
    return [
        [call["name"] for call in message.tool_calls]
        for message in messages
        if isinstance(message, AIMessage) and message.tool_calls
    ]


def arguments_of(messages: Sequence[BaseMessage], name: str) -> list[dict[str, Any]]:
    return [
        call["args"]
        for message in messages
        if isinstance(message, AIMessage)
        for call in message.tool_calls
        if call["name"] == name
    ]


def flat(rounds: Sequence[Sequence[str]]) -> list[str]:
    return [name for names in rounds for name in names]


def test_it_says_that_it_is_not_a_language_model() -> None:
    reply = OfflineChatModel().invoke("Hello, who are you?")
    assert reply.response_metadata["model_name"] == OFFLINE_MODEL_NAME
    assert reply.response_metadata["is_language_model"] is False
    assert "No language model is configured" in reply.text
    assert "GOOGLE_API_KEY" in reply.text
    assert reply.usage_metadata is not None
    assert reply.usage_metadata["output_tokens"] > 0


def test_it_answers_portuguese_in_portuguese() -> None:
    assert (
        "Nenhum modelo de linguagem está configurado"
        in OfflineChatModel().invoke("Olá, como você está?").text
    )


def test_it_gathers_two_at_a_time_then_sends_what_it_found_then_answers() -> None:
    messages = converse(TASK, SUPPORT, FOUND)
    rounds = calls_of(messages)
    assert all(len(names) <= 2 for names in rounds)
    assert "search_articles" in rounds[0]
    assert rounds[-1] == ["send_answer"]
    assert "open_ticket" not in flat(rounds)
    (sent,) = arguments_of(messages, "send_answer")
    assert "must reconnect the calendar" in sent["answer"]
    assert "90 days" in sent["answer"]
    assert "Printing" not in sent["answer"]
    assert "must reconnect the calendar" in messages[-1].text


def test_every_step_has_a_thought_that_names_its_tools() -> None:
    first = converse(TASK, SUPPORT, FOUND)[1]
    assert isinstance(first, AIMessage)
    assert all(call["name"] in first.text for call in first.tool_calls)


def test_a_search_keeps_the_requests_own_words_and_codes() -> None:
    (arguments, *_) = arguments_of(converse(TASK, SUPPORT, FOUND), "search_articles")
    assert arguments == {"query": "Calendar sync fails code 4031"}


def test_an_empty_search_is_tried_once_more_with_fewer_words() -> None:
    first, second = arguments_of(converse(TASK, SUPPORT, EMPTY), "search_articles")
    assert set(second["query"].split()) < set(first["query"].split())


def test_a_problem_without_an_answer_is_escalated_once() -> None:
    messages = converse(TASK, SUPPORT, EMPTY)
    assert flat(calls_of(messages)).count("open_ticket") == 1
    assert "send_answer" not in flat(calls_of(messages))
    (ticket,) = arguments_of(messages, "open_ticket")
    assert ticket["severity"] == "high"
    assert "4031" in ticket["description"]


def test_a_question_without_an_answer_is_not_escalated() -> None:
    messages = converse("What is the recipe for carrot cake?", SUPPORT, EMPTY)
    assert not {"open_ticket", "send_answer"} & set(flat(calls_of(messages)))
    assert "Nothing was found" in messages[-1].text


def test_a_ticket_is_opened_where_the_task_asks_for_it() -> None:
    messages = converse(
        "Please report this defect to engineering: the calendar page is blank.", SUPPORT, FOUND
    )
    (ticket,) = arguments_of(messages, "open_ticket")
    assert ticket["title"] == "the calendar page is blank"


def test_a_tool_that_stays_unavailable_is_tried_twice_and_named() -> None:
    messages = converse(TASK, SUPPORT, FOUND, failing=["search_articles"])
    assert flat(calls_of(messages)).count("search_articles") == 2
    assert "could not check search_articles" in messages[-1].text


def test_no_call_is_made_twice_without_reason() -> None:
    messages = converse(TASK, SUPPORT, FOUND)
    made = [
        (call["name"], json.dumps(call["args"]))
        for message in messages
        if isinstance(message, AIMessage)
        for call in message.tool_calls
    ]
    assert len(made) == len(set(made))


def test_arguments_come_from_the_request() -> None:
    messages = converse("Update deal D-42 to won with amount 1,500.", [update_deal], {})
    assert arguments_of(messages, "update_deal") == [{"deal_id": "D-42", "stage": "won", "amount": 1500}]


def test_it_asks_for_what_only_the_user_can_know() -> None:
    messages = converse("Schedule a meeting about the renewal.", [schedule_meeting], {})
    assert calls_of(messages) == []
    assert "contact_id" in messages[-1].text


def test_a_portuguese_request_finds_tools_described_in_english() -> None:
    messages = converse(
        "O cliente não consegue usar o calendário, dá erro. Ajude a resolver.", SUPPORT, FOUND
    )
    assert "search_articles" in calls_of(messages)[0]


def test_bracketed_notes_are_not_mistaken_for_the_task() -> None:
    messages = [HumanMessage(TASK), HumanMessage("[Earlier steps] the invoice was checked")]
    reply = OfflineChatModel().bind_tools(list(SUPPORT)).invoke(messages)
    assert "invoice" not in json.dumps(reply.tool_calls)


def test_steps_that_are_only_in_a_note_are_not_repeated() -> None:
    note = (
        "[Earlier steps]\n"
        "1. search_articles({'query': 'sync'}): Calendar sync stops; reconnect the calendar.\n"
        "1. find_older_cases({'query': 'sync'}) failed: the service is unavailable"
    )
    messages = [HumanMessage(TASK), HumanMessage(note)]
    reply = OfflineChatModel().bind_tools([search_articles, send_answer]).invoke(messages)
    assert [call["name"] for call in reply.tool_calls] == ["send_answer"]


def test_results_in_an_envelope_are_read_like_bare_ones() -> None:
    wrapped = {name: {"success": True, "result": result} for name, result in FOUND.items()}
    (sent,) = arguments_of(converse(TASK, SUPPORT, wrapped), "send_answer")
    (bare,) = arguments_of(converse(TASK, SUPPORT, FOUND), "send_answer")
    assert sent == bare


def test_a_required_choice_forces_a_call() -> None:
    model = OfflineChatModel()
    assert model.bind_tools(list(SUPPORT), tool_choice="any").invoke("hello").tool_calls
    named = model.bind_tools(list(SUPPORT), tool_choice="get_account").invoke("hello")
    assert [call["name"] for call in named.tool_calls] == ["get_account"]
    assert not model.bind_tools(list(SUPPORT), tool_choice="none").invoke(TASK).tool_calls


def test_call_ids_differ_between_turns() -> None:
    messages = converse(TASK, SUPPORT, FOUND)
    ids = [
        call["id"] for message in messages if isinstance(message, AIMessage) for call in message.tool_calls
    ]
    assert len(ids) == len(set(ids))


def test_a_reflection_is_complete_only_when_the_answer_was_sent() -> None:
    messages = converse(TASK, SUPPORT, FOUND)
    reflect = OfflineChatModel().with_structured_output(Reflection)
    sent_at = next(at for at, each in enumerate(messages) if getattr(each, "name", "") == "send_answer")
    early = reflect.invoke(messages[:4])
    late = reflect.invoke(messages[: sent_at + 1])
    assert isinstance(early, Reflection)
    assert isinstance(late, Reflection)
    assert (early.task_complete, early.final_answer) == (False, None)
    assert early.suggested_next_action
    assert late.task_complete
    assert late.success
    assert late.final_answer is not None
    assert "must reconnect the calendar" in late.final_answer


def test_a_reflection_on_a_failed_tool_reports_no_success() -> None:
    messages = converse(TASK, [search_articles], FOUND, failing=["search_articles"])[:3]
    reflection = OfflineChatModel().with_structured_output(Reflection).invoke(messages)
    assert isinstance(reflection, Reflection)
    assert not reflection.success
    assert "search_articles" in reflection.reasoning


def test_an_instruction_behind_a_tools_reply_is_not_the_task() -> None:
    messages = [*converse(TASK, SUPPORT, FOUND)[:4], HumanMessage("Reflect on the last step of the work.")]
    reflection = OfflineChatModel().with_structured_output(Reflection).invoke(messages)
    assert isinstance(reflection, Reflection)
    assert "calendar" in reflection.reasoning.lower()


class Route(BaseModel):
    intent: Literal["support", "billing", "sales", "other"] = Field(description="Which team answers")


@pytest.mark.parametrize(
    ("said", "intent"),
    [
        ("The import fails with an error", "support"),
        ("Quero o reembolso da minha fatura", "billing"),
        ("How much does the bigger plan cost?", "sales"),
        ("lovely weather", "other"),
    ],
)
def test_a_message_is_routed_by_the_prompts_descriptions(said: str, intent: str) -> None:
    prompt = "- support: errors and bugs\n- billing: invoices and refunds\n- sales: prices of plans"
    route = (
        OfflineChatModel().with_structured_output(Route).invoke([SystemMessage(prompt), HumanMessage(said)])
    )
    assert isinstance(route, Route)
    assert route.intent == intent


class Summary(TypedDict):
    """A summary."""

    title: str
    confidence: float


def test_structured_output_takes_typed_dicts_and_json_schemas() -> None:
    model = OfflineChatModel()
    typed = model.with_structured_output(Summary).invoke("The calendar is empty.")
    schema = {
        "title": "S",
        "type": "object",
        "properties": {"n": {"type": "integer", "minimum": 3}},
        "required": ["n"],
    }
    assert isinstance(typed, dict)
    assert typed["title"] == "The calendar is empty"
    assert model.with_structured_output(schema).invoke("hi") == {"n": 3}


class Impossible(BaseModel):
    code: str

    @field_validator("code")
    @classmethod
    def _never(cls, value: str) -> str:
        raise ValueError(f"{value!r} is refused")


def test_include_raw_returns_the_error_where_nothing_fits() -> None:
    reply = OfflineChatModel().with_structured_output(Impossible, include_raw=True).invoke("hi")
    assert isinstance(reply, dict)
    assert reply["parsed"] is None
    assert reply["parsing_error"] is not None
    assert json.loads(reply["raw"].text)


async def test_tokens_leave_one_by_one_and_reach_callbacks() -> None:
    seen: list[str] = []

    class Listener(BaseCallbackHandler):
        def on_llm_new_token(self, token: str | list[str | dict[str, Any]], **_: Any) -> None:
            seen.append(str(token))

    pieces = [
        piece.text async for piece in OfflineChatModel().astream(TASK, config={"callbacks": [Listener()]})
    ]
    assert len([piece for piece in pieces if piece]) > 5
    assert "".join(pieces) == "".join(seen) == OfflineChatModel().invoke(TASK).text


async def test_async_and_sync_replies_are_the_same() -> None:
    model = OfflineChatModel().bind_tools(list(SUPPORT))
    one, other = model.invoke(TASK), await model.ainvoke(TASK)
    assert (one.content, one.tool_calls) == (other.content, other.tool_calls)


def test_a_stop_word_ends_the_reply() -> None:
    assert OfflineChatModel().invoke("Hello", stop=["language"]).text.endswith("No ")


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
    assert OfflineChatModel().bind_tools(list(SUPPORT)).invoke([HumanMessage(content)]) is not None


def test_an_empty_conversation_gets_a_reply() -> None:
    assert OfflineChatModel().invoke([SystemMessage("Be kind.")]).text


@pytest.mark.parametrize("parameters", [{}, {"type": "object"}, {"type": "object", "properties": {}}])
def test_tools_without_parameters_can_be_called(parameters: dict[str, Any]) -> None:
    bare = {
        "type": "function",
        "function": {"name": "get_calendar_state", "description": "", "parameters": parameters},
    }
    reply = OfflineChatModel().bind_tools([bare]).invoke("How is the calendar?")
    assert [call["args"] for call in reply.tool_calls] == [{}]


def test_plain_functions_can_be_bound() -> None:
    def get_calendar(query: str) -> str:
        """Get calendar entries."""
        return query

    tools: list[Callable[..., str]] = [get_calendar]
    assert OfflineChatModel().bind_tools(tools).invoke("Which calendar entries are there?").tool_calls


# Lists of records


@tool
def get_bookings() -> str:
    """Look up the customer's bookings."""
    return ""


@tool
def search_sync_articles(query: str) -> str:
    """Search the articles on calendar sync that fails, and its codes."""
    return query


@tool
def find_sync_cases(query: str) -> str:
    """Find earlier cases of calendar sync that failed, by code."""
    return query


@tool
def get_holidays() -> str:
    """Look up the holidays in the calendar."""
    return ""


BOOKINGS = [
    {"code": "BK-71", "item": "Large room", "status": "moved"},
    {"code": "BK-72", "item": "Small room", "status": "paid", "paid_by": "card"},
]


@pytest.mark.parametrize(
    ("task", "said", "unsaid"),
    [
        ("Is booking BK-71 paid?", "Large room: code BK-71, status moved", "Small room"),
        ("What is with the booking of the small room?", "Small room: code BK-72, status paid", "Large"),
        ("Which bookings are there?", "Small room: code BK-72", "Large room: status paid"),
    ],
)
def test_a_statement_about_a_record_comes_from_that_record(task: str, said: str, unsaid: str) -> None:
    answer = converse(task, [get_bookings], {"get_bookings": BOOKINGS})[-1].text
    assert said in answer
    assert unsaid not in answer


def test_with_an_answer_only_closely_related_tools_are_called() -> None:
    tools = (search_sync_articles, find_sync_cases, get_holidays)
    answered = converse(TASK, tools, {"search_sync_articles": ARTICLE})
    assert "get_holidays" not in flat(calls_of(answered))
    assert "get_holidays" in flat(calls_of(converse(TASK, tools, {})))


@pytest.mark.parametrize(
    ("said", "choice"),
    [
        ("It works, thanks", "yes"),
        ("sim, está conectado", "yes"),
        ("it is not connected", "no"),
        ("ainda não funciona", "no"),
        ("I get an error", "no"),
        ("Is it ready?", "unclear"),
    ],
)
def test_yes_and_no_are_recognised_by_the_words(said: str, choice: str) -> None:
    class Confirmation(BaseModel):
        confirmed: Literal["yes", "no", "unclear"] = "unclear"

    read = OfflineChatModel().with_structured_output(Confirmation).invoke([HumanMessage(said)])
    assert read == Confirmation.model_validate({"confirmed": choice})


def test_a_question_mark_alone_makes_a_question() -> None:
    class Kind(BaseModel):
        kind: Literal["statement", "question"]

    model = OfflineChatModel().with_structured_output(Kind)
    assert model.invoke([HumanMessage("Do the invoices come monthly?")]) == Kind(kind="question")
    assert model.invoke([HumanMessage("The invoices come monthly")]) == Kind(kind="statement")


def test_the_size_of_something_is_a_value_and_the_size_of_a_page_is_not() -> None:
    class Sizes(BaseModel):
        company_size: int = Field(ge=0)
        page_size: int = Field(ge=1)

    read = OfflineChatModel().with_structured_output(Sizes).invoke([HumanMessage("We are about 50 people")])
    assert read == Sizes(company_size=50, page_size=1)
