"""The registry of graphs, from which HTTP, Studio and the documentation are made."""

from collections.abc import Mapping

from graphs.consensus import SPEC as CONSENSUS
from graphs.coordinator import SPEC as COORDINATOR
from graphs.critique_refine import SPEC as CRITIQUE_REFINE
from graphs.hierarchical import SPEC as HIERARCHICAL
from graphs.onboarding import SPEC as ONBOARDING
from graphs.parallel import SPEC as PARALLEL
from graphs.planning_monitor import SPEC as PLANNING_MONITOR
from graphs.react import SPEC as REACT
from graphs.sales import SPEC as SALES
from graphs.spec import GraphSpec
from graphs.workflow import SPEC as WORKFLOW

REGISTRY: Mapping[str, GraphSpec] = {
    spec.name: spec
    for spec in (
        COORDINATOR,
        ONBOARDING,
        SALES,
        REACT,
        CRITIQUE_REFINE,
        PLANNING_MONITOR,
        HIERARCHICAL,
        CONSENSUS,
        PARALLEL,
        WORKFLOW,
    )
}

# The graphs that may be a step of a workflow: not the one that runs workflows, so that none runs itself, and
# none that asks a customer, who could not answer.
STEP_GRAPHS: Mapping[str, GraphSpec] = {
    name: spec for name, spec in REGISTRY.items() if spec.asks == "company" and spec is not WORKFLOW
}
