"""The catalogue: everything HTTP, Studio and the documents need to know of a graph, once."""

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
