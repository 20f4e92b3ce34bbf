"""The one exception that users meet, and the one logger."""

import logging
from collections.abc import Iterable
from difflib import get_close_matches

logger = logging.getLogger("fewshot_nlp")


class FewShotError(ValueError):
    """A user's mistake, told in one line: what was found, what was expected, and the fix.

    The command line prints the message and exits with code 2.
    """


class ScienceError(FewShotError):
    """Numbers went wrong (NaN or infinity): names the learner, the step and the tensor."""


def did_you_mean(name: object, known: Iterable[object]) -> str:
    """The nearest known name as a question that follows a message's sentence; empty where none is near.

    Example:
        >>> did_you_mean("domian", ["domain", "task"])
        " Did you mean 'domain'?"
    """
    near = get_close_matches(str(name), map(str, known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""
