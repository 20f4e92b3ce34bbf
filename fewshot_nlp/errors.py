"""The one exception that users meet, and the one logger."""

import logging

logger = logging.getLogger("fewshot_nlp")


class FewShotError(ValueError):
    """A user's mistake, told in one line: what was found, what was expected, and the fix.

    The command line prints the message and exits with code 2.
    """


class ScienceError(FewShotError):
    """Numbers went wrong (NaN or infinity): names the learner, the step and the tensor."""
