"""What holds for every router and every text."""

import math
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from core.embeddings.embedder import clean_text, shorten
from core.embeddings.local import HashedNgrams
from nodes.coordinator.classifier import clean_training_texts, fit_classifier
from nodes.coordinator.router import MAX_CLAUSES, split_clauses
from tests.support.profiles import examples

WORDS = ["invoice", "meeting", "crash", "order", "book", "where", "please", "refund", "error", "today"]
UTTERANCES = st.lists(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(" ".join), min_size=1, max_size=8
)
EXAMPLES = st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), UTTERANCES, min_size=1)
model = HashedNgrams()


@settings(max_examples=examples(30), deadline=None)
@given(EXAMPLES, st.one_of(st.just([]), UTTERANCES), st.text(max_size=60), st.randoms(use_true_random=False))
def test_an_answer_is_a_probability_and_does_not_depend_on_the_order_of_examples(
    examples: dict[str, list[str]], out_of_scope: list[str], text: str, chance: random.Random
) -> None:
    shuffled = {name: chance.sample(texts, len(texts)) for name, texts in reversed(examples.items())}
    answers = []
    for each in (examples, shuffled):
        known = clean_training_texts(each, out_of_scope)
        fitted = fit_classifier(known, [model.embed_query(utterance) for utterance in known.texts])
        [answer] = fitted.classify([model.embed_query(clean_text(text))], [clean_text(text)])
        answers.append(answer)
    assert answers[0] == answers[1]
    answer = answers[0]
    assert 0 <= answer.confidence <= answer.familiarity <= 1
    assert math.isfinite(answer.margin)
    assert answer.margin >= 0 or len(examples) == 1
    named = [answer.route, *(each.route for each in answer.alternatives)]
    assert len(named) == len(set(named)) == min(len(examples), 4)
    ranked = [answer.confidence, *(each.confidence for each in answer.alternatives)]
    assert ranked == sorted(ranked, reverse=True)
    assert sum(ranked) <= 1 + 1e-6


@given(st.text(max_size=500))
def test_clauses_lose_nothing_but_space_and_the_commas_between_them(text: str) -> None:
    found = split_clauses(text)
    assert len(found) <= MAX_CLAUSES
    assert "".join("".join(found).split()).replace(",", "") == "".join(text.split()).replace(",", "")


@given(st.text(max_size=300), st.integers(0, 200))
def test_a_shortened_text_fits(text: str, limit: int) -> None:
    assert len(shorten(text, limit)) <= limit or shorten(text, limit) == text
