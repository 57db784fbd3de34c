"""What a graph or a specialised agent can do, with what, and within which limits."""

from collections.abc import Sequence

from pydantic import BaseModel, Field

from agents.spec import AgentSpec
from core.memory import STRATEGIES
from core.models import ModelInfo
from graphs.registry import REGISTRY
from graphs.spec import GraphKind, GraphSpec
from graphs.specialists import MAX_ITERATIONS
from nodes.coordinator.nodes import SPECIALIST_SECONDS


class Limits(BaseModel):
    """When a run ends although it is not done; null: it has no such limit."""

    seconds: float = Field(description="Time limit of one run")
    thoughts: int | None = Field(description="Most thoughts of a run")
    super_steps: int | None = Field(description="Most super-steps of a run")


class ContextBudget(BaseModel):
    """How much a model is given to read, in tokens."""

    total: int = Field(description="All sections together")
    memory: int | None = Field(description="Of it, memories; null: no share of their own")


class Capabilities(BaseModel):
    """What a graph or a specialised agent can do."""

    kind: GraphKind = Field(
        description="Who decides the steps. model_driven: the model; workflow: a definition; hybrid: fixed "
        "steps with a model in them"
    )
    suits: str = Field(description="The tasks it is the right choice for")
    pattern: str = Field(description="The graph that runs it")
    tools: list[str] = Field(description="What its model may call; empty: nothing")
    model: str = Field(description="The model of its answers")
    reasoning_model: str = Field(description="The model of its plans and judgements")
    temperature: float | None = Field(description="Of its answers; null: each step has its own")
    team: str | None = Field(description="The people who take over from it; null: it depends on the message")
    languages: list[str] = Field(description="The languages its examples are in; empty: it has none")
    limits: Limits
    context_tokens: ContextBudget


def describe_graph(
    spec: GraphSpec, *, tools: Sequence[str], model: ModelInfo, run_seconds: float, context_tokens: int
) -> Capabilities:
    """Describe a graph of the registry.

    Args:
        spec: The graph.
        tools: Names of all tools.
        model: The configured models.
        run_seconds: Time limit of a run.
        context_tokens: Most tokens of context.
    """
    return Capabilities(
        kind=spec.kind,
        suits=spec.suits,
        pattern=spec.name,
        tools=list(tools) if spec.calls_tools else [],
        model=model.model,
        reasoning_model=model.reasoning_model,
        temperature=None,
        team=None,
        languages=[],
        limits=Limits(seconds=run_seconds, thoughts=None, super_steps=spec.recursion_limit),
        context_tokens=ContextBudget(total=context_tokens, memory=None),
    )


def describe_agent(spec: AgentSpec, *, model: ModelInfo, context_tokens: int) -> Capabilities:
    """Describe a specialised agent.

    Args:
        spec: The agent.
        model: The configured models.
        context_tokens: Most tokens of context.
    """
    pattern: GraphSpec | None = REGISTRY.get(spec.pattern)
    return Capabilities(
        kind=pattern.kind if pattern else "model_driven",
        suits=spec.description,
        pattern=spec.pattern,
        tools=list(spec.tools),
        model=model.model,
        reasoning_model=model.reasoning_model,
        temperature=spec.temperature,
        team=spec.team,
        languages=list(spec.examples),
        limits=Limits(
            seconds=SPECIALIST_SECONDS,
            thoughts=MAX_ITERATIONS if spec.pattern == "react" else None,
            super_steps=pattern.recursion_limit if pattern else None,
        ),
        context_tokens=ContextBudget(total=context_tokens, memory=STRATEGIES[spec.retrieval].token_budget),
    )
