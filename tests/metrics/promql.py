"""The names in a PromQL expression: promtool says whether it parses, this says what it talks about."""

import re

FUNCTIONS = {"absent", "changes", "histogram_quantile", "max", "min", "rate", "sum", "time"}
KEYWORDS = {"and", "or", "unless", "by", "without"}
TEXT = re.compile(r'"(?:[^"\\]|\\.)*"')
MATCHERS = re.compile(r"\{([^{}]*)\}")
GROUPING = re.compile(r"\b(?:by|without) ?\(([^()]*)\)")
WINDOW = re.compile(r"\[[^\[\]]*\]")


def names_and_labels(expression: str) -> tuple[set[str], set[str]]:
    """Return the metrics and the labels of an expression; a word that is not PromQL counts as a metric."""
    rest = WINDOW.sub("", TEXT.sub('""', expression))
    matchers = " ".join(MATCHERS.findall(rest))
    grouping = " ".join(GROUPING.findall(rest))
    labels = set(re.findall(r"[A-Za-z_]\w*", f"{matchers} {grouping}"))
    words = set(re.findall(r"[A-Za-z_]\w*", MATCHERS.sub("", GROUPING.sub("", rest))))
    return words - FUNCTIONS - KEYWORDS, labels
