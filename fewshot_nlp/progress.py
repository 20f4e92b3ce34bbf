"""Progress bars: one place decides whether they are shown."""

import os
from importlib import import_module
from typing import Any

from tqdm import tqdm

_off = False


def disable_progress_bars() -> None:
    """Shows no bar from now on, of this package and of huggingface_hub; ``TQDM_DISABLE=1`` does so from outside."""
    global _off
    _off = True
    import_module("huggingface_hub.utils").disable_progress_bars()


def progress_bar(*iterable: Any, shown: bool | None = None, **options: Any) -> Any:
    """A bar of tqdm on stderr.

    Args:
        iterable: what tqdm goes through, if anything.
        shown: None on terminals, and only if it takes over two seconds; True at once; False never.
        options: of tqdm.
    """
    silent = _off or os.environ.get("TQDM_DISABLE", "").lower() not in ("", "0", "false")
    disable = True if silent or shown is False else False if shown else None
    return tqdm(*iterable, **{"delay": 0 if shown else 2, **options, "disable": disable})
