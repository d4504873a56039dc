"""Which anomaly rules out which consistency model.

Three small graphs, with the vocabulary of Elle (Kingsbury and Alvaro, VLDB 2020):

* `IMPLIES`: seeing the one anomaly is seeing the other (every aborted read is a G1);
* `STRONGER`: a history of the one model is a history of the other;
* `PROSCRIBES`: what a model forbids beyond what the models below it forbid.

The sources are Adya (1999) for the PL levels and the G phenomena, Bailis et al. (2014) for read atomicity and the
session guarantees, Cerone, Bernardi and Gotsman (2015) for read-atomic to snapshot isolation, Liu et al. (2018)
for update atomicity, Daudjee and Salem (2004, 2006) for the strong session forms. `serializable` means conflict
serializable (PL-3).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

ALIASES: Mapping[str, str] = {
    "PL-1": "read-uncommitted",
    "PL-2": "read-committed",
    "PL-CS": "cursor-stability",
    "PL-2L": "monotonic-view",
    "PL-MSR": "monotonic-snapshot-read",
    "PL-2+": "consistent-view",
    "PL-FCV": "forward-consistent-view",
    "PL-2.99": "repeatable-read",
    "PL-SI": "snapshot-isolation",
    "PL-3U": "update-serializable",
    "PL-3": "serializable",
    "conflict-serializable": "serializable",
    "PL-SS": "strict-serializable",
    "strong-serializable": "strict-serializable",
    "strong-session-PL-1": "strong-session-read-uncommitted",
    "strong-session-PL-2": "strong-session-read-committed",
    "strong-PL-1": "strong-read-uncommitted",
    "strong-PL-2": "strong-read-committed",
}
"""Other names of models -> the name used here and in verdicts."""

STRONGER: Mapping[str, tuple[str, ...]] = {
    "read-committed": ("read-uncommitted",),
    "cursor-stability": ("read-committed",),
    "monotonic-view": ("read-committed",),
    "monotonic-snapshot-read": ("read-committed",),
    "monotonic-atomic-view": ("read-committed",),
    "consistent-view": ("cursor-stability", "monotonic-view"),
    "forward-consistent-view": ("consistent-view",),
    "update-serializable": ("forward-consistent-view",),
    "read-atomic": ("monotonic-atomic-view",),
    "causal-cerone": ("read-atomic",),
    "prefix": ("causal-cerone",),
    "update-atomic": ("read-atomic",),
    "parallel-snapshot-isolation": ("causal-cerone", "update-atomic"),
    "repeatable-read": ("cursor-stability", "monotonic-atomic-view"),
    "snapshot-isolation": (
        "forward-consistent-view",
        "monotonic-atomic-view",
        "monotonic-snapshot-read",
        "parallel-snapshot-isolation",
        "prefix",
    ),
    "serializable": (
        "repeatable-read",
        "snapshot-isolation",
        "update-serializable",
        "view-serializable",
    ),
    "view-serializable": (),
    "session-serializable": ("1SR",),
    "1SR": (),
    "strong-session-read-uncommitted": ("read-uncommitted",),
    "strong-session-read-committed": ("read-committed", "strong-session-read-uncommitted"),
    "strong-session-snapshot-isolation": ("snapshot-isolation", "strong-session-read-committed"),
    "strong-session-serializable": ("serializable", "strong-session-snapshot-isolation"),
    "strong-read-uncommitted": ("strong-session-read-uncommitted",),
    "strong-read-committed": ("strong-session-read-committed", "strong-read-uncommitted"),
    "strong-snapshot-isolation": ("strong-session-snapshot-isolation", "strong-read-committed"),
    "strict-serializable": (
        "serializable",
        "session-serializable",
        "linearizable",
        "strong-snapshot-isolation",
        "strong-session-serializable",
    ),
    "linearizable": ("sequential",),
    "sequential": ("causal",),
    "causal": ("writes-follow-reads", "PRAM"),
    "PRAM": ("monotonic-reads", "monotonic-writes", "read-your-writes"),
    "read-uncommitted": (),
    "writes-follow-reads": (),
    "monotonic-reads": (),
    "monotonic-writes": (),
    "read-your-writes": (),
}

IMPLIES: Mapping[str, tuple[str, ...]] = {
    "G0": ("G1c", "G0-process"),
    "G0-process": ("G1c-process", "G0-realtime"),
    "G0-realtime": ("G1c-realtime",),
    "G1a": ("G1",),
    "G1b": ("G1",),
    "G1c": ("G1", "G1c-process"),
    "G1c-process": ("G1c-realtime", "G1-process"),
    "G1c-realtime": ("G1-realtime",),
    "G1": ("G1-process",),
    "G1-process": ("G1-realtime",),
    "G-single-item": ("G-single", "G-single-item-process", "G-nonadjacent-item"),
    "G-single-item-process": (
        "G-single-process",
        "G-single-item-realtime",
        "G-nonadjacent-item-process",
    ),
    "G-single-item-realtime": ("G-single-realtime", "G-nonadjacent-item-realtime"),
    "G-single": ("G-nonadjacent", "GSIb", "G-single-process"),
    "G-single-process": ("G-nonadjacent-process", "G-single-realtime"),
    "G-single-realtime": ("G-nonadjacent-realtime",),
    "G-nonadjacent-item": ("G-nonadjacent", "G2-item", "G-nonadjacent-item-process"),
    "G-nonadjacent-item-process": (
        "G-nonadjacent-process",
        "G2-item-process",
        "G-nonadjacent-item-realtime",
    ),
    "G-nonadjacent-item-realtime": ("G2-item-realtime", "G-nonadjacent-realtime"),
    "G-nonadjacent": ("G2", "G-nonadjacent-process"),
    "G-nonadjacent-process": ("G2-process", "G-nonadjacent-realtime"),
    "G-nonadjacent-realtime": ("G2-realtime",),
    "G2-item": ("G2", "G2-item-process"),
    "G2-item-process": ("G2-process", "G2-item-realtime"),
    "G2-item-realtime": ("G2-realtime",),
    "G2": ("G2-process",),
    "G2-process": ("G2-realtime",),
    "GSIa": ("GSI",),
    "GSIb": ("GSI",),
    "incompatible-order": ("G1a",),
    "dirty-update": ("G1a",),
    "future-read": ("G1c",),
    "lost-update": ("write-skew", "G2-item"),
    "write-skew": ("G2",),
}

PROSCRIBES: Mapping[str, tuple[str, ...]] = {
    "read-uncommitted": ("G0", "duplicate-elements", "cyclic-versions", "garbage-read"),
    "read-committed": ("G1",),
    "cursor-stability": ("G1", "G-cursor", "lost-update"),
    "monotonic-view": ("G1", "G-monotonic"),
    "monotonic-snapshot-read": ("G1", "G-MSR"),
    "consistent-view": ("G1", "G-single"),
    "forward-consistent-view": ("G1", "GSIb"),
    "update-serializable": ("G1", "G-update"),
    "read-atomic": ("internal", "G1a", "future-read"),
    "causal-cerone": ("internal", "G1a"),
    "prefix": ("internal", "G1a"),
    "parallel-snapshot-isolation": ("internal", "G1a"),
    "update-atomic": ("lost-update",),
    "repeatable-read": ("G1", "G2-item", "lost-update"),
    "snapshot-isolation": ("internal", "G1", "GSI", "G-nonadjacent"),
    "serializable": ("internal", "G1", "G2"),
    "strong-session-read-uncommitted": ("G0-process",),
    "strong-session-read-committed": ("G1c-process",),
    "strong-session-snapshot-isolation": ("internal", "G1-process", "G-nonadjacent-process"),
    "strong-session-serializable": ("G1-process", "G2-process"),
    "strong-read-uncommitted": ("G0-realtime",),
    "strong-read-committed": ("G1c-realtime",),
    "strong-snapshot-isolation": ("internal", "G1-realtime", "G-nonadjacent-realtime"),
    "strict-serializable": ("G1", "G1-realtime", "G1c-realtime", "G2-realtime"),
}


def canonical(model: str) -> str:
    """The name of a model used here. Raises ValueError for a name nobody knows."""
    name = ALIASES.get(model, model)
    if name not in STRONGER:
        known = sorted(set(STRONGER) | set(ALIASES))
        raise ValueError(f"no consistency model {model!r}; there are {', '.join(known)}")
    return name


def implied_models(model: str) -> frozenset[str]:
    """The model and everything weaker."""
    return _closure([canonical(model)], STRONGER)


def implied_anomalies(anomalies: Iterable[str]) -> frozenset[str]:
    """The anomalies and all that are seen in them."""
    return _closure(anomalies, IMPLIES)


def prohibited_anomalies(model: str) -> frozenset[str]:
    """Every anomaly that a history of the model cannot show."""
    forbidden = {a for m in implied_models(model) for a in PROSCRIBES.get(m, ())}
    return _closure(forbidden, _reverse(IMPLIES))


def impossible_models(anomalies: Iterable[str]) -> frozenset[str]:
    """Every model that the anomalies rule out."""
    seen = implied_anomalies(anomalies)
    direct = [m for m, forbidden in PROSCRIBES.items() if seen & set(forbidden)]
    return _closure(direct, _reverse(STRONGER))


def boundary(anomalies: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The weakest models ruled out by the anomalies, and all other models ruled out; both sorted."""
    impossible = impossible_models(anomalies)
    weakest = {m for m in impossible if not (implied_models(m) - {m}) & impossible}
    return tuple(sorted(weakest)), tuple(sorted(impossible - weakest))


def _closure(start: Iterable[str], edges: Mapping[str, Iterable[str]]) -> frozenset[str]:
    found = set(start)
    waiting = list(found)
    while waiting:
        for neighbour in edges.get(waiting.pop(), ()):
            if neighbour not in found:
                found.add(neighbour)
                waiting.append(neighbour)
    return frozenset(found)


def _reverse(edges: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    turned: dict[str, list[str]] = {}
    for source, targets in edges.items():
        for target in targets:
            turned.setdefault(target, []).append(source)
    return turned
