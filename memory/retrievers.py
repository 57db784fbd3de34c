"""The retrievers, as one SQL statement in which each ranks its own candidates; see sql/retrievers.sql.

Every retriever reads the rows of one scope only, and most read all of them: a contact has some hundreds of
messages, and an exact scan of these is faster than an index over those of all contacts, and exact.
"""

import re
from dataclasses import dataclass
from functools import cache
from typing import Final

from core.memory.strategies import Retriever
from core.postgres import read_queries
from memory.database import SQL_FOLDER

# Okapi BM25 (Robertson and Zaragoza 2009, doi:10.1561/1500000019) over the fields of a unit. ts_rank of one
# lexeme is its frequency weighted by field, later occurrences counting less, divided by pi^2 / 6.
K1: Final = 0.8
B: Final = 0.5
# Weights of a lexeme in the next unit, in the previous unit, in the date, and in the text itself.
FIELD_WEIGHTS: Final = "{0.35,0.5,1,1}"
# How much the scores of the next and of the previous unit's vectors add to a unit's own.
NEXT_UNIT_WEIGHT: Final = 0.5
PREVIOUS_UNIT_WEIGHT: Final = 0.2
# The least word similarity of two spellings of one name.
MIN_NAME_SIMILARITY: Final = 0.5
# A name that a larger share of the units contains, such as the contact's own, is ignored.
COMMON_NAME_SHARE: Final = 0.1

# Planning the statement takes longer than running it, so each connection plans it once, for any contact. The
# costs of such a plan are estimated wrongly, which must neither start the JIT compiler nor make sequential
# scans look cheap. A scan of the HNSW index continues until it has met enough rows of the scope.
SESSION_SETTINGS_SQL: Final = """
SELECT set_config('plan_cache_mode', 'force_generic_plan', true), set_config('jit', 'off', true),
       set_config('enable_seqscan', 'off', true), set_config('hnsw.iterative_scan', 'strict_order', true)
"""

_PARTS: Final = read_queries(SQL_FOLDER / "retrievers.sql")
_PARAMETER: Final = re.compile(rb"%\((\w+)\)s")
_DEFAULT_ORDER: Final = b"score DESC, id"
# Messages may share a time; their ids keep the order.
_ORDERS: Final[dict[Retriever, bytes]] = {"recent": b"score DESC, id DESC"}
_RANKED: Final = b"""
SELECT '%b' AS retriever, array_agg(id) AS units, array_agg(message) AS messages, array_agg(at) AS times,
       array_agg(score) AS scores
FROM (SELECT id, message, at, score::float8 FROM %b ORDER BY %b) AS best_first"""

_WAITING: Final = b"(SELECT count(*) FROM found JOIN memory.unembedded ON unit = found.id)"

# The most facts that a search returns.
MAX_FACTS: Final = 5
# Texts are read only for what is shown, because reading a text costs more than ranking it.
FACTS_SQL: Final = "SELECT id, subject, predicate, scope_key, object FROM memory.facts WHERE id = ANY(%s)"
UNITS_SQL: Final = """
SELECT units.id AS unit, messages.id AS message, messages.role, units.text, units.session_id
FROM memory.units JOIN memory.messages ON seq = units.message
WHERE units.id = ANY(%s)
"""


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL with parameters ``$1``, ``$2`` and so on, and their names in that order."""

    sql: bytes
    parameters: tuple[str, ...]


@cache
def build_statement(retrievers: tuple[Retriever, ...], *, model: int, dimensions: int) -> Statement:
    """Build one statement that runs the retrievers and returns a row for each.

    The columns ``units`` and ``scores`` hold the ids that the retriever found and their scores, best first,
    ``messages`` and ``times`` the messages of these and their times. All four are null if nothing was found.
    ``waiting`` is the number of the contact's units without a vector, in every row.

    Args:
        retrievers: At least one.
        model: The id of the embedding model, for the index of its vectors.
        dimensions: The dimensions of its vectors.
    """
    words = ["words"] if {"keyword", "fact"} & {*retrievers} else []
    parts = [_PARTS[name] for name in ("scope", *words, *retrievers)]
    ranked = b" UNION ALL ".join(
        _RANKED % (name.encode(), _from_clause(name), _ORDERS.get(name, _DEFAULT_ORDER))
        for name in retrievers
    )
    waiting = _WAITING if "vector" in retrievers else b"0"
    query = b"WITH %b SELECT ranked.*, %b AS waiting FROM (%b) AS ranked" % (
        b",".join(parts),
        waiting,
        ranked,
    )
    query = query.replace(b"<model>", b"%d" % model).replace(b"<dimensions>", b"%d" % dimensions)
    names = tuple(dict.fromkeys(name.decode() for name in _PARAMETER.findall(query)))
    return Statement(
        _PARAMETER.sub(lambda match: b"$%d" % (names.index(match[1].decode()) + 1), query), names
    )


def _from_clause(retriever: Retriever) -> bytes:
    """Return where a retriever's rows come from; units are joined with their messages."""
    return b"fact" if retriever == "fact" else b"%b JOIN found USING (id)" % retriever.encode()
