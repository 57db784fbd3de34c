"""The panel that votes where a caller names none."""

from typing import Annotated, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from nodes.consensus.texts import Line

DEFAULT_WEIGHT = 1.0


class Lens(TypedDict):
    """What one voter looks at."""

    name: Annotated[Line, Field(max_length=80, description="Names the voter; no two are the same")]
    instruction: Annotated[
        str, Field(min_length=1, max_length=2_000, description="What this voter cares for, and what not")
    ]
    weight: NotRequired[
        Annotated[
            float,
            Field(
                gt=0,
                le=1_000,
                allow_inf_nan=False,
                description="How much the vote counts under the rule weighted; 1 where it is not given",
                json_schema_extra={"default": DEFAULT_WEIGHT},
            ),
        ]
    ]


# Five, as an odd number cannot tie over two options.
DEFAULT_LENSES: list[Lens] = [
    Lens(
        name="customer_advocate",
        instruction="Speak for this customer: what they need, what they were promised, how much trouble they "
        "have had already, and whether they would call the outcome fair.",
        weight=DEFAULT_WEIGHT,
    ),
    Lens(
        name="risk_and_compliance",
        instruction="Look for what could go wrong: law, privacy, contracts and policies, fraud and abuse, "
        "and harm that cannot be undone. Prefer what can be undone where the facts are thin.",
        weight=DEFAULT_WEIGHT,
    ),
    Lens(
        name="commercial",
        instruction="Weigh money: what the outcome costs now, what the customer is worth over the years, "
        "and whether it keeps them or teaches them to ask for more.",
        weight=DEFAULT_WEIGHT,
    ),
    Lens(
        name="operations",
        instruction="Ask whether it can be done: who would do it, how long it takes, what it displaces, and "
        "whether it holds when many customers ask the same.",
        weight=DEFAULT_WEIGHT,
    ),
    Lens(
        name="precedent",
        instruction="Think of every customer in the same situation: would the outcome be consistent with how "
        "others are treated, and would the company be content to see it become the rule?",
        weight=DEFAULT_WEIGHT,
    ),
]
