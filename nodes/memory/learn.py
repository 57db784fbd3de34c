"""What a conversation tells of the contact, learnt once it is over."""

from collections.abc import Sequence
from typing import Final

from core.errors import ModelRefused
from core.logging import get_logger
from core.memory import Memory, Message, Scope
from core.models import ChatModels
from nodes.shared.fact_extraction import extract_facts

log = get_logger(__name__)

# Newest messages of a session that are read: each takes a call of the model.
MOST_MESSAGES: Final = 100


async def learn(models: ChatModels, memory: Memory, scope: Scope, messages: Sequence[Message]) -> int:
    """Have memory take the facts that the messages state.

    Learnt again, nothing changes: memory knows a fact by the message that said it.

    Args:
        models: To read the messages.
        memory: Where the facts are kept. It has the messages already.
        scope: Whose facts they are.
        messages: Of one session, oldest first.

    Returns:
        How many facts were stated.

    Raises:
        ModelError: The model failed for good. A message it refuses is passed over.
        MemoryUnavailable: The memory is away.
    """
    read = messages[-MOST_MESSAGES:]
    stated = 0
    for place, message in enumerate(read):
        try:
            facts = await extract_facts(models, message, before=read[:place])
        except ModelRefused as refusal:
            log.warning("message_not_learnt", message_id=message.id, reason=refusal.message)
            continue
        if facts:
            await memory.upsert_facts(scope, facts)
        stated += len(facts)
    return stated
