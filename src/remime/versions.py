"""The package version and the integer version of every stage.

A stage's version is part of its rule's ``params`` and of its outputs' attributes: raising it is how a
change of behaviour reaches what was computed before.
"""

__version__ = "0.1.0"

STAGES: dict[str, int] = {
    "weights": 1,
    "manifest": 1,
    "split": 1,
    "collect": 3,
    "align": 1,
    "measure": 1,
    "select": 1,
    "invert": 1,
    "index": 1,
    "train": 5,
    "plan": 1,
    "reenact": 6,
    "external": 1,
    "answer": 1,
    "score": 1,
    "summarize": 2,
    "figures": 1,
    "sheet": 1,
    "report": 1,
}
