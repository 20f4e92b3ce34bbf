"""The one exception that users meet, and the one logger."""

import logging
from collections.abc import Iterable
from difflib import get_close_matches
from itertools import accumulate
from typing import Any

logger = logging.getLogger("fewshot_nlp")
_SHOWN = 60
"""Characters of a value that a message shows."""
_LISTED = 160
"""Characters of a list of names that a message shows."""


class FewShotError(ValueError):
    """A user's mistake, told in one line: what was found, what was expected, and the fix.

    The command line prints the message and exits with code 2.
    """


class ScienceError(FewShotError):
    """Numbers went wrong (NaN or infinity): names the learner, the step and the tensor."""


def did_you_mean(name: object, known: Iterable[object]) -> str:
    """The nearest known name as a question that follows a message's sentence; empty where none is near.

    Examples:
        >>> did_you_mean("domian", ["domain", "task"])
        " Did you mean 'domain'?"
    """
    near = get_close_matches(str(name), map(str, known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def clipped(text: str) -> str:
    """A text in one line, cut where it is long, for a message."""
    text = " ".join(line.strip() for line in text.splitlines())
    return text[:_SHOWN] + "..." * (len(text) > _SHOWN)


def quoted(value: Any) -> str:
    """A value as it is written in Python, for a message."""
    return clipped(repr(value))


def listed(names: Iterable[str]) -> str:
    """Names for a message, the first of them where they are many."""
    found = [clipped(name) for name in names]
    ends = list(accumulate(len(name) + 2 for name in found))
    fit = max(1, sum(end <= _LISTED for end in ends))
    return ", ".join(found[:fit]) + f", ... ({len(found)} in all)" * (fit < len(found))
