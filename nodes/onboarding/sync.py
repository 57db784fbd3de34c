"""Bring the journey and the CRM together: read the contact once a run, make the changes that wait."""

from typing import Any

from langgraph.runtime import Runtime
from langgraph.types import Command

from core.context import Context
from core.errors import CrmError, CrmRefused, CrmUnavailable, NotFound
from core.logging import get_logger
from core.texts import detect_language
from nodes.deps import Deps, Node, get_run_context
from nodes.onboarding.outbox import deliver, described
from nodes.onboarding.replies import detect_reply_language
from nodes.onboarding.route import Onward, onward
from nodes.onboarding.state import PROFILE, Customer, OnboardingState, Outcome, Write
from nodes.onboarding.texts import TEXTS

_log = get_logger(__name__)


def sync(deps: Deps) -> Node[OnboardingState, Command[Onward]]:
    """Node: read and write what is due. A CRM that is away holds nobody up: the next step tries again.

    Raises:
        NotFound: The CRM does not know the contact.
    """

    async def sync(state: OnboardingState, *, runtime: Runtime[Context]) -> Command[Onward]:
        update = await _contact(deps, state, get_run_context(runtime).locale)
        now: OnboardingState = {**state, **update}  # type: ignore[typeddict-item]
        is_read = now["customer"]["read"]
        # The customer waits meanwhile: a CRM that just did not answer is not asked again in this step.
        left = await _delivered(deps, state) if is_read else state["outbox"]
        away = bool(left) or not is_read
        texts = TEXTS[now["language"]]
        if away and not state["excused"]:
            update["said"] = [*state["said"], texts.not_saved]
        elif state["excused"] and not away:
            update["said"] = [*state["said"], texts.saved_again]
        update |= {"outbox": left, "unsaved": [described(write) for write in left], "excused": away}
        return Command(goto=onward(now), update=update)

    return sync


async def _contact(deps: Deps, state: OnboardingState, locale: str | None) -> dict[str, Any]:
    """What the CRM knows of the contact; what the customer said themselves stands."""
    customer = state["customer"]
    if customer["read"]:
        return {}
    try:
        contact = await deps.crm.get_contact(customer["id"])
    except CrmRefused as refusal:
        raise NotFound(
            f"the CRM does not know contact {customer['id']!r}", details={"contact_id": customer["id"]}
        ) from refusal
    except CrmError:
        return {}
    known = contact.profile.model_dump(exclude_none=True)
    outcomes, profile = dict(state["outcomes"]), dict(state["profile"])
    for field in PROFILE:
        said = outcomes.get(field)
        if field in known and (said is None or said["status"] != "given"):
            profile[field] = known[field]
            outcomes[field] = Outcome(status="known", reason="the CRM has it")
    update: dict[str, Any] = {
        "customer": Customer(id=customer["id"], name=contact.name, read=True),
        "profile": profile,
        "outcomes": outcomes,
    }
    if not state["told"]:
        own = detect_language("", contact.language)
        update["language"] = detect_reply_language(locale, state["reply"], own)
    return update


async def _delivered(deps: Deps, state: OnboardingState) -> list[Write]:
    """What is left of the outbox. One that is refused does not hold up those behind it."""
    left: list[Write] = []
    for at, write in enumerate(state["outbox"]):
        try:
            await deliver(deps.crm, state["customer"]["id"], write)
        except CrmUnavailable:
            return [*left, *state["outbox"][at:]]
        except CrmError as error:
            _log.warning("onboarding_write_refused", kind=write["kind"], key=write["key"], error=str(error))
            left.append(write)
    return left
