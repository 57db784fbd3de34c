"""Structured replies: contents for the fields of an output schema, derived from the conversation."""

import json
import re
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Final

from core.offline.composing import Composer
from core.offline.evidence import Evidence
from core.offline.fields import Field, Kind, choice_for, listed_choice, number_for, value_for
from core.offline.filling import Filler
from core.offline.lexicon import ACTION_REQUESTS, EFFECT_REQUESTS, FAULT_WORDS, word_set
from core.offline.observations import Observation
from core.offline.schemas import Schema
from core.offline.statements import extract_statements
from core.offline.words import (
    concept_of,
    concepts,
    end_sentence,
    headline,
    reads,
    requested_verbs,
    sentences,
    shorten_sentence,
    tokens,
)

_SUCCESS: Final = word_set(
    """
    success successful succeeded ok valid approved passed pass sucesso aprovado valido
    """
)
_COMPLETE: Final = word_set(
    """
    complete completed done finished final finish satisfied resolved concluido completo pronto
    """
)
_GOOD: Final = word_set("strength strengths pros positives covered")
_BAD: Final = word_set(
    """
    weakness weaknesses gap gaps missing issues problems improvement improvements suggestions cons risks
    """
)
_MENDS: Final = word_set("improvement improvements suggestions")
_ASSIGNED: Final = word_set("tool agent intent category handler route worker specialist assignee")
_GRADED: Final = word_set(
    """
    score confidence rating quality grade probability relevance certainty nota confianca
    """
)
_RANGE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(?:to|-|\u2013|and|a|e)\s*(\d+(?:\.\d+)?)")
_MOST_ITEMS: Final = 3
_FEWEST_ROUNDS: Final = 2
_ROUNDS_BEFORE_EFFECT: Final = 4


def structured_reply(schema: Schema, composer: Composer) -> str:
    """Return a JSON text that is valid for the schema."""
    value = extract_statements(schema, composer.conversation)
    if value is None:
        value = Filler(ReplySource(composer), schema, sparse=False).fill()
    return json.dumps(value, ensure_ascii=False)


class ReplySource:
    """Contents for an output schema.

    Args:
        composer: The conversation and what can be said about it.
    """

    def __init__(self, composer: Composer) -> None:
        self._composer = composer
        self._conversation = composer.conversation

    @cached_property
    def complete(self) -> bool:
        """Whether the task is done.

        It is when the model has answered, when the last step had an effect, or when the last of several
        rounds brought nothing new and no effect that the task calls for can still be waited for.
        """
        if self._conversation.ends_with_answer:
            return True
        steps = self._conversation.steps
        if not steps:
            return False
        if any(not each.failed and not reads(each.tool) for each in steps[-1].observations):
            asked = set(requested_verbs(self._conversation.task)) & ACTION_REQUESTS
            return len(self._composer.done) >= len(asked)
        before = {(each.tool, each.text) for step in steps[:-1] for each in step.observations}
        new = [each for each in steps[-1].observations if _is_new(each, before)]
        least = _ROUNDS_BEFORE_EFFECT if self._awaits_effect else _FEWEST_ROUNDS
        return len(steps) >= least and not new

    @property
    def _awaits_effect(self) -> bool:
        asked = set(requested_verbs(self._conversation.task)) & EFFECT_REQUESTS
        return bool(asked or set(concepts(self._conversation.task)) & FAULT_WORDS)

    @cached_property
    def _latest(self) -> tuple[Observation, ...]:
        return self._conversation.steps[-1].observations if self._conversation.steps else ()

    @cached_property
    def _material(self) -> str:
        """The text to judge: the model's own answer, the observations, or the request's material."""
        observed = " ".join(observation.text for observation in self._conversation.observations)
        own = " ".join(sentences(self._conversation.task)[1:])
        return self._conversation.answer or observed or own

    @cached_property
    def _coverage(self) -> float:
        if not self._material.strip():
            return 0.5
        asked = set(concepts(next(iter(sentences(self._conversation.topic)), "")))
        return len(asked & set(concepts(self._material))) / len(asked) if asked else 1.0

    def text(self, field: Field) -> str | None:
        """Return a text by the purpose of the field."""
        writers: dict[Kind, Callable[[], str | None]] = {
            "reason": self._reason,
            "next": self._next,
            "message": self._message,
            "headline": lambda: headline(self._conversation.task) or None,
            "query": lambda: " ".join(self._composer.key_words) or None,
            "description": lambda: self._part(field) or self._composer.description,
            "request": lambda: self._part(field) or shorten_sentence(self._conversation.task, 2_000) or None,
        }
        if field.kind in writers:
            return writers[field.kind]()
        if _ASSIGNED & set(field.words):
            part = self._parts[field.item] if field.item is not None and field.item < len(self._parts) else ""
            if chosen := listed_choice(self._conversation.everything, part or self._conversation.topic):
                return chosen
        return value_for(field, self._conversation)

    def spare_text(self, field: Field) -> str:
        """Return a text if nothing more specific is known."""
        if field.kind == "next":
            return self._composer.phrases.none_left
        if field.kind == "message":
            return self._composer.closing or self._composer.plain_reply
        return self._part(field) or headline(self._conversation.task, 200) or "-"

    def number(self, field: Field, low: float | None, high: float | None) -> float | None:
        """Return a grade from how much of the request is covered, else a number of the conversation."""
        if _GRADED & set(field.words):
            least, most = _bounds(field, low, high)
            return round(least + self._coverage * (most - least), 2)
        if {"step", "index", "position", "order", "number"} & set(field.words):
            return (field.item or 0) + 1
        return number_for(field, self._conversation, low, high)

    def flag(self, field: Field) -> bool | None:
        """Success of the latest observations, completion of the steps, else whether the task speaks of it."""
        words = set(field.words)
        if words & _COMPLETE:
            return self.complete
        if words & _SUCCESS:
            return not any(observation.failed for observation in self._latest)
        asked = set(concepts(self._conversation.topic))
        telling = {concept_of(word) for word in words} - {
            concept_of(word) for word in ("is", "has", "needs", "should")
        }
        return True if telling & asked else None if not field.required else False

    def choice(self, field: Field, options: Sequence[Any]) -> int | None:
        """Return the option the conversation speaks of."""
        return choice_for(field, options, self._conversation)

    def items(self, field: Field) -> list[str] | None:
        """Return one to three items: what is covered, what is not, or the parts of the request."""
        words = set(field.words)
        evidence = Evidence(self._conversation.topic, self._conversation.observations)
        phrases = self._composer.phrases
        said = {concept_of(word) for word in tokens(self._material)}
        asked = self._composer.key_words
        if words & _BAD:
            say = phrases.add_on if words & _MENDS else phrases.silent_on
            return [say.format(word=word) for word in asked if concept_of(word) not in said][:_MOST_ITEMS]
        if words & _GOOD:
            return [phrases.speaks_of.format(word=word) for word in asked if concept_of(word) in said][
                :_MOST_ITEMS
            ]
        if field.kind == "query" or "tags" in words:
            return asked[:_MOST_ITEMS] or None
        passages = [passage.sentence for passage in evidence.passages(_MOST_ITEMS)]
        if passages and field.kind in {"description", "message"}:
            return passages
        return self._parts[:_MOST_ITEMS] or None

    @cached_property
    def _parts(self) -> list[str]:
        """The request's clauses."""
        return [shorten_sentence(each, 200) for each in sentences(self._conversation.task)]

    def _part(self, field: Field) -> str | None:
        if field.item is None or not self._parts:
            return None
        return self._parts[field.item % len(self._parts)]

    def _reason(self) -> str:
        if self._latest:
            return self._composer.render_observations(self._latest)
        if self._conversation.answer:
            return end_sentence(shorten_sentence(self._conversation.answer, 300))
        return self._composer.phrases.no_steps.format(task=self._composer.task_line)

    def _next(self) -> str | None:
        phrases = self._composer.phrases
        if self.complete:
            return None
        if self._composer.evidence.answers:
            return phrases.next_answer
        if len(self._conversation.steps) > _FEWEST_ROUNDS:
            return phrases.next_person
        return phrases.next_check.format(topic=self._composer.subject)

    def _message(self) -> str | None:
        if not self.complete:
            return None
        if self._conversation.answer:
            return self._conversation.answer
        return self._composer.closing or self._composer.plain_reply


def _is_new(observation: Observation, before: set[tuple[str, str]]) -> bool:
    return observation.outcome == "found" and (observation.tool, observation.text) not in before


def _bounds(field: Field, low: float | None, high: float | None) -> tuple[float, float]:
    stated = _RANGE.search(field.description)
    least, most = (float(stated.group(1)), float(stated.group(2))) if stated else (0.0, 1.0)
    least = low if low is not None else min(least, high) if high is not None else least
    most = high if high is not None else max(most, least)
    return least, most
