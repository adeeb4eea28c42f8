"""Random relabel rules and label sets, to be compared with the real Prometheus.

Rules are made of few names and values, so that they meet labels that exist; some are not valid.
Label sets are mostly well-formed, some unsorted, with empty values or repeated names, as senders
err.
Everything follows from the seed.
"""

from __future__ import annotations

import json
import random
from typing import Any

NAMES = ("__name__", "a", "ab", "abc", "b", "job", "instance", "x_1", "x_2", "label.with.dots", "é")
VALUES = (
    "", "a", "ab", "abc", "B", "up", "api", "10.0.0.1:9090", "a;b", "x-1", "$1", "Straße",
    "\u01c5\u1e9e\u0130\u0131\u1fb3", "many words\nand lines", "日本", "0", "17",
)  # fmt: skip
REGEXES = (
    "(.*)", "", "a.*", "(a)(b)?.*", "(.+);(.+)", "x_(.)", "(?i)ab",
    "(?P<host>[^:]+):(?P<port>\\d+)",
    "[a-c]+", ".", "a|b|job", "(a|(b))c?", "\\p{Lu}+.*", "up|api", "(?U)(.*)b*", "[^a]*", "(?s).*",
    "__.*__", "(.)(.)(.)(.)(.)(.)(.)(.)(.)(.)(.*)",
)  # fmt: skip
BAD_REGEXES = ("(a", "a)", "[a", "*a", "a{1001}", "(?=a)", "\\8", "a**", "[b-a]")
TEMPLATES = (
    "$1", "${1}", "$2", "x_$1", "${1}_$2", "$1x", "${host}", "$host:$port", "$$", "$", "a$", "$0",
    "${0}x", "$10", "${11}", "${a", "plain", "$01", "$é", "", "${1}$", "$_", "up",
)  # fmt: skip
ACTIONS = (
    "replace", "keep", "drop", "keepequal", "dropequal", "hashmod", "labelmap", "labeldrop",
    "labelkeep", "lowercase", "uppercase", "Replace", "DROP",
)  # fmt: skip


def random_rule(source: random.Random) -> dict[str, Any]:
    """Return the fields of one rule; about one in ten is refused."""
    action = source.choice(ACTIONS)
    rule: dict[str, Any] = {} if source.random() < 0.1 else {"action": action}
    by_name, equality = action in {"labeldrop", "labelkeep"}, action.endswith("equal")
    errs = source.random() < 0.07
    if not by_name or errs:
        count = source.choice((0, 1, 1, 2, 3))
        rule["source_labels"] = [source.choice(NAMES) for _ in range(count)]
        rule["target_label"] = source.choice((*NAMES, *TEMPLATES))
    if (not equality and source.random() < 0.8) or errs:
        rule["regex"] = source.choice(BAD_REGEXES if source.random() < 0.04 else REGEXES)
    if (action in {"replace", "Replace", "labelmap"} and source.random() < 0.8) or errs:
        rule["replacement"] = source.choice(TEMPLATES)
    if not (by_name or equality) and source.random() < 0.2:
        rule["separator"] = source.choice(("", "-", ";", "::"))
    if action == "hashmod":
        rule["modulus"] = source.choice((0, 1, 7, 1000, (1 << 64) - 1))
    if source.random() < 0.02:
        rule["unknown"] = 1
    return rule


def random_labels(source: random.Random) -> list[list[str]]:
    """Return the pairs of one label set, in the order that a sender gave them."""
    names = source.sample(NAMES, source.randrange(len(NAMES)))
    if source.random() < 0.8:
        names.sort(key=str.encode)
    elif names and source.random() < 0.3:
        names.append(names[0])
    values = VALUES if source.random() < 0.3 else VALUES[1:]
    return [[name, source.choice(values)] for name in names]


def random_case(source: random.Random, n_series: int = 12) -> dict[str, Any]:
    """Return rules as text and label sets, as the comparing program takes them."""
    rules = [random_rule(source) for _ in range(source.choice((1, 1, 2, 3, 5)))]
    return {
        # JSON is YAML.
        "config": json.dumps(rules, ensure_ascii=False),
        "series": [random_labels(source) for _ in range(n_series)],
    }
