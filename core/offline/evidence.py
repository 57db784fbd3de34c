"""Evidence: which sentences and facts of the observations answer the task, and how well.

Sentences are ranked by BM25 (Robertson and Zaragoza, 2009) over the task's concepts, with additions for the
document they stand in, their place in it, and for saying what to do or how much.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from core.offline.lexicon import FAULT_WORDS, INSTRUCTION_WORDS, word_set
from core.offline.observations import Document, Fact, Observation
from core.offline.words import concept_of, concepts, is_general, keywords, tokens
from core.texts import normalise_word

# Share of the question's weight that one document, with the facts, must speak of to count as an answer.
ANSWERING: Final = 0.3

_QUANTITY: Final = re.compile(r"\b(?:how (?:many|much)|number of|quant[oa]s?)\b")
_K1: Final = 1.2
_B: Final = 0.5
_GENERAL_WEIGHT: Final = 0.05
_VAGUE_WEIGHT: Final = 0.5
# Long requests hold more words than any answer takes up: from this weight on they count as no longer.
_LONGEST_QUESTION: Final = 8.0
# Tools are called in the order of their relevance: what came first weighs a little more.
_LATER: Final = 0.9
_RELEVANT_DOCUMENT: Final = 0.5
# A document this close to the best one may say as much as it.
_AS_GOOD: Final = 0.85
_TITLE: Final = 0.5
_SAME_SENTENCE: Final = 0.6
_MAX_DOCUMENTS: Final = 60
_NOISE_KEYS: Final = word_set(
    """
    id ids uuid score rank created updated at url link slug locale tags tag success ok count total
    timestamp
    """
)
_NAMED_BY_CODE: Final = 2.0
_ACCOUNT: Final = frozenset({"plan", "version"})
_INSTRUCTIONS: Final = frozenset(concept_of(word) for word in INSTRUCTION_WORDS) | INSTRUCTION_WORDS


@dataclass(frozen=True, slots=True)
class Passage:
    """A sentence worth quoting, and its document."""

    document: Document
    sentence: str
    position: int


@dataclass(frozen=True)
class Evidence:
    """The observations compared with the question.

    Attributes:
        question: The text that asks.
        observations: What the tools brought.
    """

    question: str
    observations: tuple[Observation, ...]

    @cached_property
    def weights(self) -> dict[str, float]:
        """The question's concepts and how much each says about it."""
        return {name: _weight(name) for name in concepts(self.question)}

    @cached_property
    def documents(self) -> tuple[Document, ...]:
        """Documents that share enough with the question, best first."""
        seen: dict[tuple[str, tuple[str, ...]], float] = {}
        kept: list[tuple[float, Document]] = []
        for at, observation in enumerate(self.observations):
            for document in observation.documents[:_MAX_DOCUMENTS]:
                key = (document.title, document.sentences)
                if key not in seen:
                    seen[key] = self._document_score(document) * max(_LATER**at, 0.5)
                    kept.append((seen[key], document))
        best = max(seen.values(), default=0.0)
        relevant = [
            (score, document)
            for score, document in kept
            if 0 < score >= _RELEVANT_DOCUMENT * best and not self._is_told_by_numbers(document)
        ]
        return self._without_repeats(sorted(relevant, key=lambda pair: -pair[0])[:_MAX_DOCUMENTS])

    def _without_repeats(self, ranked: list[tuple[float, Document]]) -> tuple[Document, ...]:
        """Return the documents that match as well as the best, or mention what no better one does."""
        chosen: list[Document] = []
        told: set[str] = set()
        for score, document in ranked:
            named = {name for name in self.weights if name in _named_in(document) and not is_general(name)}
            if score >= _AS_GOOD * ranked[0][0] or not named <= told:
                chosen.append(document)
                told |= named
        return tuple(chosen)

    @cached_property
    def answers(self) -> bool:
        """Whether one observation covers the whole question."""
        facts = self._named_in_facts
        best = max((self._share(facts | _named_in(document)) for document in self.documents), default=0.0)
        return max(best, self._share(facts)) >= ANSWERING

    def _share(self, spoken_of: frozenset[str]) -> float:
        """Return how much of the question's weight the names cover; 0 if only general ones do."""
        total = min(sum(self.weights.values()), _LONGEST_QUESTION)
        named = [name for name in self.weights if name in spoken_of]
        specific = sum(not is_general(name) for name in self.weights)
        # One word of several is a coincidence.
        if sum(not is_general(name) for name in named) < min(2, specific - 1):
            return 0.0
        if all(is_general(name) for name in named):
            return 0.0
        return sum(self.weights[name] for name in named) / total

    @property
    def covered(self) -> list[str]:
        """Key words of the question that an observation mentions, as written."""
        return [word for word in keywords(self.question) if concept_of(word) in self._spoken_of]

    def passages(self, limit: int = 4) -> list[Passage]:
        """Return the best sentences, at most ``limit``, in the order of their documents."""
        scored = [
            (self._sentence_score(passage), passage)
            for document in self.documents
            for passage in (Passage(document, text, at) for at, text in enumerate(document.sentences))
        ]
        chosen: list[Passage] = []
        for _, passage in sorted(scored, key=lambda pair: -pair[0]):
            if len(chosen) < limit and self._adds(passage, chosen):
                chosen.append(passage)
        order = {id(document): at for at, document in enumerate(self.documents)}
        return sorted(chosen, key=lambda passage: (order[id(passage.document)], passage.position))

    def _is_told_by_numbers(self, document: Document) -> bool:
        """Return whether a quantity is asked for, and the facts contain all of it that the document has."""
        if not _QUANTITY.search(normalise_word(self.question)):
            return False
        named = {name for name in self.weights if name in _named_in(document) and not is_general(name)}
        return named <= self._named_in_facts

    def _adds(self, passage: Passage, chosen: list[Passage]) -> bool:
        """Return whether a sentence says something new; lesser documents have one sentence each."""
        if any(_likeness(passage.sentence, other.sentence) >= _SAME_SENTENCE for other in chosen):
            return False
        best = self._document_score(self.documents[0])
        is_as_good = self._document_score(passage.document) >= _AS_GOOD * best
        return is_as_good or all(other.document is not passage.document for other in chosen)

    def facts(self, limit: int = 4) -> list[tuple[str, list[Fact]]]:
        """Groups of short facts that concern the question or its answer: the shared keys, and the facts.

        Of a list, the records that the question names best are told, each by its title and on its own.
        """
        about = {name for name in self.weights if not is_general(name)}
        groups: dict[tuple[str, str, int], list[Fact]] = {}
        for fact in self._told_facts:
            if not _is_noise(fact):
                groups.setdefault((fact.tool, " ".join(fact.keys[:-1]), fact.record), []).append(fact)
        named = {key: _record_overlap(facts, about) for key, facts in groups.items() if key[2]}
        best: dict[tuple[str, str], float] = {}
        for (tool, parent, _), score in named.items():
            best[tool, parent] = max(score, best.get((tool, parent), 0.0))
        scored: list[tuple[float, str, list[Fact]]] = []
        for key, facts in groups.items():
            if key[2]:
                if named[key] and named[key] == best[key[:2]]:
                    scored.append((named[key], facts[0].title or key[1], facts))
            elif kept := [fact for fact in facts if _overlap(fact, about)]:
                scored.append((max(_overlap(fact, about) for fact in kept), key[1], kept))
        ranked = sorted(scored, key=lambda entry: -entry[0])[:limit]
        return [(parent, facts[:limit]) for _, parent, facts in ranked]

    @cached_property
    def _told_facts(self) -> list[Fact]:
        """The facts of what is not a document."""
        titles = {
            document.title for each in self.observations for document in each.documents if document.title
        }
        return [fact for each in self.observations for fact in each.facts if fact.title not in titles]

    @cached_property
    def _spoken_of(self) -> frozenset[str]:
        documents = [document for observation in self.observations for document in observation.documents]
        return self._named_in_facts.union(*map(_named_in, documents))

    @cached_property
    def _named_in_facts(self) -> frozenset[str]:
        texts = (
            f"{' '.join(fact.keys)} {fact.value}"
            for observation in self.observations
            for fact in observation.facts
        )
        listed = {name for fact in self._told_facts if fact.record for name in _record_names(fact)}
        return frozenset(name for text in texts for name in concepts(text)) | listed

    @cached_property
    def _rarity(self) -> dict[str, float]:
        bags = [set(concepts(text)) for document in self.documents for text in document.sentences]
        counts = Counter(name for bag in bags for name in bag)
        return {
            name: math.log(1 + (len(bags) - counts[name] + 0.5) / (counts[name] + 0.5))
            for name in self.weights
        }

    @cached_property
    def _document_rarity(self) -> dict[str, float]:
        bags = [
            {name for text in (document.title, *document.sentences) for name in concepts(text)}
            for observation in self.observations
            for document in observation.documents[:_MAX_DOCUMENTS]
        ]
        counts = Counter(name for bag in bags for name in bag)
        return {name: math.log(1 + (len(bags) + 1) / (counts[name] + 1)) for name in self.weights}

    @cached_property
    def _average_length(self) -> float:
        lengths = [len(concepts(text)) for document in self.documents for text in document.sentences]
        return max(sum(lengths) / len(lengths), 1.0) if lengths else 1.0

    def _document_score(self, document: Document) -> float:
        in_title = set(concepts(document.title))
        in_body = {name for sentence in document.sentences for name in concepts(sentence)}
        return sum(
            weight
            * self._document_rarity[name]
            * ((name in in_body | in_title) + _TITLE * (name in in_title))
            for name, weight in self.weights.items()
        )

    def _sentence_score(self, passage: Passage) -> float:
        counts = Counter(concepts(passage.sentence))
        norm = _K1 * (1 - _B + _B * sum(counts.values()) / self._average_length)
        matched = sum(
            weight * self._rarity[name] * counts[name] * (_K1 + 1) / (counts[name] + norm)
            for name, weight in self.weights.items()
            if counts[name]
        )
        best = self._document_score(self.documents[0]) or 1.0
        words = tokens(passage.sentence)
        instructs = any(word in _INSTRUCTIONS for word in words)
        quantifies = any(character.isdigit() for character in passage.sentence)
        standing = self._document_score(passage.document) / best
        return (
            (matched + 1.2) * standing + 0.7 * instructs + 0.5 * quantifies - 0.1 * min(passage.position, 5)
        )


def _named_in(document: Document) -> frozenset[str]:
    return frozenset(name for text in (document.title, *document.sentences) for name in concepts(text))


def _weight(name: str) -> float:
    """Return a concept's weight: codes, numbers and words for faults weigh less than what is faulty."""
    if is_general(name):
        return _GENERAL_WEIGHT
    return _VAGUE_WEIGHT if name in FAULT_WORDS or not name.isalpha() else 1.0


def _likeness(one: str, other: str) -> float:
    left, right = set(concepts(one)), set(concepts(other))
    return len(left & right) / len(left | right) if left | right else 1.0


def _is_noise(fact: Fact) -> bool:
    last = set(tokens(fact.keys[-1])) if fact.keys else set()
    return isinstance(fact.value, bool) or bool(last & _NOISE_KEYS)


def _record_names(fact: Fact) -> list[str]:
    """Return the concepts of a list's record, from the tool's name and the record's title."""
    return [*(concept_of(word) for word in tokens(fact.tool)[1:]), *concepts(fact.title)]


def _record_overlap(facts: Sequence[Fact], about: set[str]) -> float:
    """Return how well a list's record matches the question; a code in both identifies it."""
    said = {name for fact in facts for name in concepts(normalise_word(str(fact.value)))}
    codes = sum(not name.isalpha() for name in said & about)
    names = about & set(_record_names(facts[0]))
    return max(_overlap(fact, about) for fact in facts) + len(names) + _NAMED_BY_CODE * codes


def _overlap(fact: Fact, about: Iterable[str]) -> float:
    names = {concept_of(word) for key in fact.keys for word in tokens(key)}
    said = set(concepts(normalise_word(str(fact.value))))
    return len(names & set(about)) + 0.5 * len(said & set(about)) + 0.75 * bool(names & _ACCOUNT)
