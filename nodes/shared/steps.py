"""The steps of the patterns that call a model: how freely each writes, and whether it thinks.

``docs/graphs.md`` has this table. An agent's file and the input of ``react`` set the temperature of their own
steps.
"""

from collections.abc import Mapping
from typing import Final

from core.models import ModelStep

# A thought chooses the next action, so it is worth thinking about.
THINK: Final = ModelStep(role="reasoning", temperature=0.2)
REFLECT: Final = ModelStep(role="reasoning", temperature=0.1)
# Some freedom to find a way; the schema and the checks ensure the form.
PLAN: Final = ModelStep(role="reasoning", temperature=0.3)
# Less freedom than the first plan, because one change is asked for.
REPLAN: Final = ModelStep(role="reasoning", temperature=0.2)
# The same results should be judged the same way.
MONITOR: Final = ModelStep(role="reasoning", temperature=0.1)
# The same task should be divided in the same way.
DECOMPOSE: Final = ModelStep(role="reasoning", temperature=0.2)
# A decision judges what there is and invents nothing.
DECIDE: Final = ModelStep(role="reasoning", temperature=0.1)
# Voters differ by their lenses: chance would only add noise to the count.
VOTE: Final = ModelStep(role="reasoning", temperature=0.2)
# High: the judges find what is missing, but not what was never tried.
GENERATE: Final = ModelStep(role="chat", temperature=0.8)
# Low, because versions are compared by their points.
CRITICISE: Final = ModelStep(role="reasoning", temperature=0.2)
# It looks for a short list of faults and weighs nothing: the same text should get the same verdict.
VALIDATE: Final = ModelStep(role="reading", temperature=0.1)
# Below the generator's, because it corrects a message and does not write another one.
REFINE: Final = ModelStep(role="chat", temperature=0.6)
# The merger only rewords what others found; a low temperature keeps it from adding to it.
MERGE: Final = ModelStep(role="chat", temperature=0.3)
# The reading extracts and invents nothing, but it decides on a deal.
READ_RESULTS: Final = ModelStep(role="reasoning", temperature=0.1)
CHOOSE: Final = ModelStep(role="reading", temperature=0.0)
ANSWER: Final = ModelStep(role="chat", temperature=0.3)
# Some freedom to phrase what is already decided.
WORD: Final = ModelStep(role="chat", temperature=0.3)
READ_REPLY: Final = ModelStep(role="reading", temperature=0.0)
WRITE: Final = ModelStep(role="chat", temperature=0.3)
SUMMARISE: Final = ModelStep(role="chat", temperature=0.0)
# A batch of messages may hold many facts, which a shorter reply would cut.
EXTRACT: Final = ModelStep(role="chat", temperature=0.0)

# Steps by graph and name, for the documentation.
STEPS: Final[Mapping[str, Mapping[str, ModelStep]]] = {
    "react": {"think": THINK, "reflect": REFLECT},
    "planning_monitor": {"plan": PLAN, "replan": REPLAN, "monitor": MONITOR},
    "hierarchical": {"decompose": DECOMPOSE, "decide": DECIDE},
    "critique_refine": {"generate": GENERATE, "criticise": CRITICISE, "validate": VALIDATE, "refine": REFINE},
    "parallel": {"merge": MERGE},
    "consensus": {"vote": VOTE},
    "sales": {"read_results": READ_RESULTS, "reply": WORD},
    "coordinator": {"classify": CHOOSE, "specialist": ANSWER, "clarify, merge": WORD},
    "onboarding": {"read": READ_REPLY, "tour, guide, answer": WRITE},
    "sessions and memory": {"summarise": SUMMARISE, "extract facts": EXTRACT},
}
