"""Texts of replies: thoughts, answers and descriptions, composed from the conversation's own words."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from core.offline.conversation import Conversation
from core.offline.evidence import Evidence
from core.offline.lexicon import ACTION_REQUESTS, PHRASES, Phrases, join_phrases
from core.offline.observations import Fact, Observation
from core.offline.words import (
    concept_of,
    concepts,
    end_sentence,
    headline,
    is_general,
    keywords,
    reads,
    requested_verbs,
    sentences,
    shorten_sentence,
)

_LONGEST_SENTENCE: Final = 320
_LONGEST_FAULT: Final = 120
_MOST_SENTENCES: Final = 5
_LONGEST_LEAD: Final = 8
_DIRECT_WORDS: Final = 12
_MOST_FAULTS: Final = 2


@dataclass(frozen=True)
class Composer:
    """Writes what the model says about a conversation, in the task's language."""

    conversation: Conversation

    @cached_property
    def phrases(self) -> Phrases:
        """Connecting words."""
        return PHRASES[self.conversation.language]

    @cached_property
    def evidence(self) -> Evidence:
        """The observations measured against the task."""
        return Evidence(self.conversation.topic, self.conversation.observations)

    @cached_property
    def key_words(self) -> list[str]:
        """The words of the task's subject, without those of the action if others are left."""
        words = keywords(self.conversation.topic)
        actions = set(requested_verbs(self.conversation.topic)) & ACTION_REQUESTS
        return [word for word in words if concept_of(word) not in actions] or words

    @cached_property
    def subject(self) -> str:
        """What the task is about, in a few words."""
        words = self.key_words[:5]
        return f"“{' '.join(words)}”" if words else f"“{self.task_line}”"

    @cached_property
    def task_line(self) -> str:
        """The task in one line."""
        return headline(self.conversation.task, 160).rstrip(" ?!.,:;") or "…"

    @cached_property
    def matter(self) -> str:
        """What the task is about, without a lead-in such as ``Please open a ticket:``."""
        lead, colon, rest = self.conversation.task.partition(":")
        is_lead = len(lead.split()) <= _LONGEST_LEAD and bool(requested_verbs(lead)) and len(rest.split()) > 2  # noqa: PLR2004
        return rest.strip() if colon and is_lead else self.conversation.task

    @cached_property
    def message(self) -> str:
        """What was found, for the customer to read: without the tools that failed."""
        return " ".join(self.findings)

    @cached_property
    def answer(self) -> str:
        """What the observations say about the task, and what could not be checked."""
        parts = [*self.findings, *self.faults]
        if not self.findings:
            parts += [self.phrases.found_nothing.format(topic=self.subject), self.phrases.follow_up]
        return " ".join(parts)

    @cached_property
    def done(self) -> list[str]:
        """Names of the tools with an effect that were called and did not fail."""
        named = [
            each.tool for each in self.conversation.observations if not each.failed and not reads(each.tool)
        ]
        return list(dict.fromkeys(named))

    @cached_property
    def closing(self) -> str:
        """The answer and what was done; empty if nothing was observed."""
        if not self.conversation.observations:
            return ""
        done = [name.replace("_", " ") for name in self.done]
        parts = [self.answer] if self.findings or not done else self.faults
        parts = (
            [*parts, self.phrases.done.format(actions=join_phrases(done, self.phrases.conjunction))]
            if done
            else parts
        )
        return " ".join(parts)

    @cached_property
    def findings(self) -> list[str]:
        """Return the sentences and facts that answer the task, with their documents' titles."""
        if not self.evidence.answers:
            return self._direct(self.conversation.observations)
        said: list[str] = []
        title = ""
        for passage in self.evidence.passages(_MOST_SENTENCES):
            sentence = end_sentence(shorten_sentence(passage.sentence, _LONGEST_SENTENCE))
            is_new = passage.document.title and passage.document.title != title
            said.append(f"{passage.document.title}: {sentence}" if is_new else sentence)
            title = passage.document.title
        groups = self.evidence.facts()
        if groups:
            said.append(self.phrases.facts.format(facts="; ".join(self._group(*group) for group in groups)))
        return said

    def _direct(self, observations: Sequence[Observation]) -> list[str]:
        """Replies of reading tools that are a single short value, such as a number."""
        return [
            f"{observation.tool}: {end_sentence(observation.text.strip())}"
            for observation in observations
            if observation.outcome == "found"
            and reads(observation.tool)
            and observation.text[:1] not in {"{", "["}
            and len(observation.text.split()) <= _DIRECT_WORDS
        ]

    @cached_property
    def faults(self) -> list[str]:
        """What could not be checked, and why."""
        latest: dict[str, Observation] = {}
        for observation in self.conversation.observations:
            latest[observation.tool] = observation
        return [
            self.phrases.could_not.format(
                tool=name, fault=end_sentence(shorten_sentence(observation.fault, _LONGEST_FAULT))
            )
            for name, observation in latest.items()
            if observation.failed
        ][:_MOST_FAULTS]

    @cached_property
    def description(self) -> str:
        """The problem and what is known about it, for people who take it over."""
        problem = end_sentence(shorten_sentence(self.matter, 600))
        known = self.phrases.evidence.format(evidence=" ".join(self.findings)) if self.findings else None
        return " ".join((problem, known or self.phrases.no_evidence, *self.faults))

    @cached_property
    def plain_reply(self) -> str:
        """A reply if there is neither a tool nor an observation, without invented facts."""
        parts = [self.phrases.plain.format(task=self.task_line)]
        material = sentences(self.conversation.task)[1:]
        if said := self._quote_facts(material):
            parts.insert(0, self.phrases.from_request.format(said=said))
        elif said := self._quote_facts(
            [each for text in self.conversation.earlier for each in sentences(text)]
        ):
            parts.insert(0, self.phrases.said_before.format(said=said))
        return " ".join(parts)

    def tools(self, names: Sequence[str]) -> str:
        """Tool names as a list in a sentence."""
        return join_phrases(list(dict.fromkeys(names)), self.phrases.conjunction)

    def render_observations(self, observations: Sequence[Observation]) -> str:
        """Return one or two sentences about the observations."""
        evidence = Evidence(self.conversation.topic, tuple(observations))
        worked = [observation.tool for observation in observations if not observation.failed]
        names = self.tools([name for name in worked if reads(name)])
        acted = self.tools([name.replace("_", " ") for name in worked if not reads(name)])
        best = evidence.passages(2)[:1] if evidence.answers else []
        said = [end_sentence(shorten_sentence(passage.sentence, 200)) for passage in best]
        said += (
            [end_sentence("; ".join(self._group(*group) for group in evidence.facts(2)))]
            if evidence.facts(2)
            else []
        )
        parts = []
        direct = self._direct(observations)
        if direct and not said:
            parts += direct
        elif said and names:
            parts.append(self.phrases.reasoning.format(tools=names, facts=" ".join(said)))
        elif names:
            parts.append(self.phrases.brought_nothing.format(tools=names))
        parts += [self.phrases.done.format(actions=acted)] if acted else []
        parts += [
            self.phrases.could_not.format(
                tool=observation.tool, fault=end_sentence(shorten_sentence(observation.fault, _LONGEST_FAULT))
            )
            for observation in observations
            if observation.failed
        ][:_MOST_FAULTS]
        return " ".join(parts)

    def known_so_far(self) -> str:
        """Return the best finding in a sentence, or that there is none."""
        best = self.evidence.passages(2)[:1] if self.evidence.answers else []
        if best:
            return self.phrases.known_so_far.format(
                known=end_sentence(shorten_sentence(best[0].sentence, 200))
            )
        return self.phrases.nothing_yet.format(topic=self.subject)

    def _group(self, parent: str, facts: list[Fact]) -> str:
        said = [f"{_label(fact.keys[-1])} {self._render_values(fact.value)}" for fact in facts]
        return f"{_label(parent)}: {', '.join(said)}" if parent else ", ".join(said)

    def _render_values(self, value: str | float) -> str:
        if isinstance(value, str | bool):
            return shorten_sentence(str(value), 80)
        grouped = f"{value:,}"
        return grouped if self.conversation.language == "en" else grouped.translate(str.maketrans(",.", ".,"))

    def _quote_facts(self, material: Sequence[str]) -> str:
        """Return the sentence of the material that shares most with the request, if it shares enough."""
        asked = {
            name
            for name in concepts(next(iter(sentences(self.conversation.task)), ""))
            if not is_general(name)
        }
        ranked = sorted(material, key=lambda sentence: -len(asked & set(concepts(sentence))))
        best = next(iter(ranked), "")
        return end_sentence(shorten_sentence(best, 240)) if asked & set(concepts(best)) else ""


def _label(key: str) -> str:
    return " ".join(key.replace("_", " ").split())
