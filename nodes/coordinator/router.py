"""Find the agent for a message: the agent registry and the router that learns from the agents' examples."""

import asyncio
import hashlib
import json
import re
import time
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Final

from agents.spec import AgentSpec
from core.deadline import is_over, remaining, set_deadline
from core.embeddings import Embedder
from core.embeddings.embedder import Purpose, shorten
from core.errors import EmbeddingError, InvalidRequest
from core.logging import get_logger
from nodes.coordinator.classifier import (
    Classifier,
    Routing,
    TrainingTexts,
    clean_training_texts,
    fit_classifier,
    load_arrays,
    store_arrays,
)
from nodes.coordinator.example_vectors import embed_examples

# The agent that answers what no other agent serves, and what another could not answer.
GENERAL = "general"
# Failures in a row after which a person should look at the customer's case, and at the agent.
ESCALATION_FAILURES = 3
DEGRADED_FAILURES = 5

# Minimum confidence of a clause that is treated as a separate part although its verdict is not ``sure``.
LIKELY: Final = 0.5
MAX_CLAUSES: Final = 8
_MIN_CLAUSE_WORDS: Final = 3
_MAX_CHARACTERS: Final = 1_000  # of a message: its beginning and end say what it is about
_PAUSE_SECONDS: Final = 30.0  # how long a failing embedding model is not called while the fallback answers
# How long a message waits for the fit. On a busy machine the first one takes longer than the message has.
_FIT_SECONDS: Final = 5.0
_MAX_CLASSIFIERS: Final = 16
# Texts whose routing is kept: a message is routed when it comes and again by its run.
_MAX_KEPT_ROUTINGS: Final = 256
# Part of the name of a stored fit: increase it when fitting changes.
_FORMAT: Final = 3

_CLAUSE_BREAK: Final = re.compile(
    r"(?<=[.!?…;])\s+|\n+"
    r"|\s*,?\s+(?=(?:and|but|also|plus|besides|e|mas|também|tambem|além|alem|aliás|alias)\s)",
    re.IGNORECASE,
)
_log = get_logger(__name__)

# By embedding model and training texts, for all routers of the process.
_classifiers: OrderedDict[str, Classifier] = OrderedDict()


class _NotFitted(EmbeddingError):
    """Raised when a message cannot wait for the fit any longer."""


class AgentHealth:
    """Count each agent's failures in a row, in memory: a restarted service trusts its agents again."""

    def __init__(self) -> None:
        self._failures: Counter[str] = Counter()

    def record_success(self, agent: str) -> None:
        """Reset the count of an agent that answered."""
        del self._failures[agent]

    def record_failure(self, agent: str) -> None:
        """Count a failure."""
        self._failures[agent] += 1

    def count_failures(self, agent: str) -> int:
        """Return the agent's failures in a row."""
        return self._failures[agent]

    def recommends_escalation(self, agent: str) -> bool:
        """Return whether the agent failed so often that a person should take the case."""
        return self._failures[agent] >= ESCALATION_FAILURES

    @property
    def degraded(self) -> Mapping[str, int]:
        """The agents that keep failing, with their failures in a row."""
        return {agent: count for agent, count in sorted(self._failures.items()) if count >= DEGRADED_FAILURES}


class Router:
    """Routes texts to the route whose examples they resemble.

    Args:
        examples: Texts of each route, in any order and any language the embedding model knows.
        embedder: The embedding model; its purpose should be ``similarity``.
        out_of_scope: Texts that belong to no route; without any, the router never abstains.
        fallback: The embedding model that answers, with a fit of its own, while ``embedder`` fails.
        cache_dir: The folder in which fits are stored between starts; None: nowhere.

    Raises:
        StartupError: There is no route, or a route without an example.
    """

    def __init__(
        self,
        examples: Mapping[str, Sequence[str]],
        embedder: Embedder,
        *,
        out_of_scope: Sequence[str] = (),
        fallback: Embedder | None = None,
        cache_dir: Path | None = None,
    ) -> None:
        self._training = clean_training_texts(examples, out_of_scope)
        self._embedder = embedder
        self._fallback = fallback
        self._cache_dir = cache_dir
        self._fits: dict[str, asyncio.Task[Classifier]] = {}
        # By the fit and a digest of the text, because the texts are customers'.
        self._kept: OrderedDict[tuple[str, bytes], Routing] = OrderedDict()
        self._paused_until = 0.0
        self._fault = ""

    @property
    def model(self) -> str:
        """The embedding model, as ``provider:model``."""
        return self._embedder.model

    @property
    def texts(self) -> list[str]:
        """The texts that the router learns from."""
        return self._training.texts

    @property
    def fault(self) -> str:
        """Why the embedding model failed at its last call; empty: it did not."""
        return self._fault

    async def prepare(self) -> None:
        """Fit, so that the first message need not wait; done once for all callers and routers.

        Raises:
            EmbeddingError: The embedding model fails, and there is no fallback or it fails too.
        """
        await self._classify_texts([])

    async def aclose(self) -> None:
        """Cancel a fit in progress and close the embedding models' connections."""
        fits = list(self._fits.values())
        for task in fits:
            task.cancel()
        await asyncio.gather(*fits, return_exceptions=True)
        for embedder in filter(None, (self._embedder, self._fallback)):
            await embedder.aclose()

    async def route(self, text: str) -> Routing:
        """Return where a text belongs; a text without a letter or digit is ``unknown``.

        Raises:
            EmbeddingError: The embedding model fails, and there is no fallback or it fails too; or there is a
                deadline, and the router is still learning after a part of it.
        """
        [routing] = await self._classify_texts([text])
        return routing

    async def route_parts(self, text: str) -> tuple[tuple[str, Routing], ...]:
        """Return the parts of a message that clearly belong to different routes, in order.

        A clause is a part of its own when the router is sure of a route that the whole message is also near
        to, or finds one of the two nearest routes likely; the clauses between belong to the part before.

        Returns:
            One element, the text itself, if it is about one thing or too long to be split.

        Raises:
            EmbeddingError: As for :meth:`route`.
        """
        clauses = split_clauses(text) if len(text) <= _MAX_CHARACTERS else []
        if len(clauses) < 2:  # noqa: PLR2004 - two parts need two clauses
            return ((text, await self.route(text)),)
        whole, *routings = await self._classify_texts([text, *clauses])
        parts: list[tuple[str, Routing | None]] = []
        for clause, routing in zip(clauses, routings, strict=True):
            own = routing if _is_separate(routing, whole) else None
            if parts and _is_same_part(parts[-1][1], own):
                before, known = parts[-1]
                parts[-1] = (f"{before} {clause}", _choose_more_confident(known, own))
            else:
                parts.append((clause, own))
        found = tuple((part, routing) for part, routing in parts if routing is not None)
        # Where the whole message leaves no doubt, a likely clause is not enough to split it.
        is_split = whole.verdict != "sure" or all(routing.verdict == "sure" for _, routing in found)
        return found if is_split and len({routing.route for _, routing in found}) > 1 else ((text, whole),)

    async def _classify_texts(self, texts: Sequence[str]) -> list[Routing]:
        """Classify with the embedder, or with the fallback while that fails."""
        if time.monotonic() >= self._paused_until:
            try:
                routings = await self._classify_with(self._embedder, texts)
            except EmbeddingError as error:
                if is_over() or isinstance(error, _NotFitted):
                    # Nothing is wrong with a model that was given no time.
                    raise
                self._fault = error.message
                if self._fallback is None:
                    raise
                self._paused_until = time.monotonic() + _PAUSE_SECONDS
                _log.warning(
                    "routing_falls_back",
                    model=self._embedder.model,
                    fallback=self._fallback.model,
                    reason=error.message,
                )
            else:
                self._fault = ""
                return routings
        return await self._classify_with(self._fallback or self._embedder, texts)

    async def _classify_with(self, embedder: Embedder, texts: Sequence[str]) -> list[Routing]:
        key = _compute_key(embedder.model, embedder.dimensions, embedder.purpose, self._training)
        classifier = await self._get_classifier(embedder, key)
        keys = {text: (key, _compute_digest(text)) for text in texts}
        routings = {text: kept for text in texts if (kept := self._kept.get(keys[text]))}
        new = [text for text in keys if text not in routings]
        shortened = [shorten(text, _MAX_CHARACTERS) for text in new]
        vectors = await embedder.embed_documents(shortened)
        for text, routing in zip(new, classifier.classify(vectors, shortened), strict=True):
            has_words = any(character.isalnum() for character in text)
            routings[text] = routing if has_words else replace(routing, verdict="unknown", confidence=0.0)
            self._kept[keys[text]] = routings[text]
        while len(self._kept) > _MAX_KEPT_ROUTINGS:
            self._kept.popitem(last=False)
        return [routings[text] for text in texts]

    async def _get_classifier(self, embedder: Embedder, key: str) -> Classifier:
        if key in _classifiers:
            _classifiers.move_to_end(key)
            return _classifiers[key]
        if key not in self._fits:
            # A task of its own: a caller that is cancelled does not cancel the fit for the others.
            task = asyncio.create_task(self._load_or_fit(embedder, key))
            task.add_done_callback(lambda done: self._forget_fit(key, done))
            self._fits[key] = task
        fit, left = self._fits[key], remaining()
        await asyncio.wait([fit], timeout=None if left is None else min(left, _FIT_SECONDS))
        if not fit.done():
            raise _NotFitted("the router is still learning the agents' examples; try again later")
        return fit.result()

    async def _load_or_fit(self, embedder: Embedder, key: str) -> Classifier:
        # Every later message needs the fit, so it does not end with the time of the first one.
        set_deadline(None)
        start = time.perf_counter()
        path = self._cache_dir / f"router-{key[:32]}.npz" if self._cache_dir else None
        texts = self._training.texts
        routes = self._training.routes
        arrays = (
            await asyncio.to_thread(load_arrays, path, embedder.dimensions, len(routes)) if path else None
        )
        if arrays:
            classifier = Classifier(routes, self._training.example_count, arrays)
        else:
            vectors = await embed_examples(embedder, texts)
            classifier = await asyncio.to_thread(fit_classifier, self._training, vectors)
            if path and classifier.arrays:
                await asyncio.to_thread(store_arrays, path, classifier.arrays)
        _classifiers[key] = classifier
        while len(_classifiers) > _MAX_CLASSIFIERS:
            _classifiers.popitem(last=False)
        _log.info(
            "router_ready",
            model=embedder.model,
            routes=len(classifier.routes),
            texts=len(texts),
            stored=arrays is not None,
            seconds=round(time.perf_counter() - start, 2),
        )
        return classifier

    def _forget_fit(self, key: str, task: asyncio.Task[Classifier]) -> None:
        del self._fits[key]
        if not task.cancelled():
            task.exception()  # marks it as retrieved, as all callers may have been cancelled


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentRegistry:
    """The agents of the service.

    Attributes:
        specs: The agents by name; one of them is :data:`GENERAL`.
        router: Finds the agent for a message.
        health: The agents' recent failures.
    """

    specs: Mapping[str, AgentSpec]
    router: Router
    health: AgentHealth = field(default_factory=AgentHealth)

    def check_name(self, agent: str) -> None:
        """Check that there is an agent of the name, or that none is named.

        Raises:
            InvalidRequest: There is not.
        """
        if agent and agent not in self.specs:
            known = sorted(self.specs)
            raise InvalidRequest(
                f"agent: there is no agent {agent[:100]!r}; the agents are: {', '.join(known)}",
                details={"agent": agent[:100], "known": known},
            )


def split_clauses(text: str) -> list[str]:
    """Split a text at ends of sentences and before conjunctions, into at most ``MAX_CLAUSES`` pieces.

    A piece too short to be about something is joined to its neighbour. Nothing is lost but white space and
    the commas at which the text was split.
    """
    clauses: list[str] = []
    for piece in _CLAUSE_BREAK.split(text):
        clause = " ".join(piece.split())
        if not clause:
            continue
        if clauses and (len(clauses) == MAX_CLAUSES or _is_short(clause) or _is_short(clauses[-1])):
            clauses[-1] = f"{clauses[-1]} {clause}"
        else:
            clauses.append(clause)
    return clauses


def _is_short(clause: str) -> bool:
    return len(clause.split()) < _MIN_CLAUSE_WORDS


def _is_separate(clause: Routing, whole: Routing) -> bool:
    near = [whole.route, *(each.route for each in whole.alternatives)]
    if clause.verdict == "sure":
        return clause.route in near
    return clause.verdict == "close" and clause.confidence > LIKELY and clause.route in near[:2]


def _is_same_part(before: Routing | None, own: Routing | None) -> bool:
    return before is None or own is None or before.route == own.route


def _choose_more_confident(one: Routing | None, other: Routing | None) -> Routing | None:
    return max(filter(None, (one, other)), key=lambda each: each.confidence, default=None)


def _compute_digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


@lru_cache(_MAX_CLASSIFIERS)
def _compute_key(model: str, dimensions: int, purpose: Purpose, training: TrainingTexts) -> str:
    """Return a digest of everything a fit depends on."""
    content = [_FORMAT, model, dimensions, purpose, training.by_route, training.out_of_scope]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
