"""Remedies that messages give in Python, as options of the command line."""

import ast
import json
import re
import shlex
from typing import Any

_MAPPING = re.compile(r"\b(\w+)=(\{[^{}]*\})")
_NAME = re.compile(r"\b(learner|encoder|task|conflicts)='([^']*)'")
_WORDS = (
    (re.compile(r"\bcall adapt\((rows)?\)( first)?"), "run `fewshot-nlp adapt` first"),
    (re.compile(r"pass load_rows\('([^']*)', '[^']*'\)"), r"`fewshot-nlp evaluate --card \1` draws from it"),
    (re.compile(r"\blabels=\[\.\.\.\]"), "--labels '[a, b]'"),
    (re.compile(r"\blabels=\{name: description\}"), "--labels '{name: description}'"),
    (re.compile(r"\bcolumn_mapping names\b"), "--column_mapping names"),
    (re.compile(r"\bcolumn_mapping renames\b"), "--column_mapping renames"),
)


def on_the_command_line(message: str) -> str:
    """A message whose remedies are options: ``learner='ridge'`` becomes ``--learner ridge``."""
    message = _MAPPING.sub(lambda found: _option(found[1], found[2], found[0]), message)
    message = _NAME.sub(lambda found: f"--{found[1]} {shlex.quote(found[2])}", message)
    for pattern, words in _WORDS:
        message = pattern.sub(words, message)
    return message


def _option(name: str, literal: str, otherwise: str) -> str:
    try:
        value: Any = ast.literal_eval(literal)
    except (ValueError, SyntaxError):
        return otherwise
    return f"--{name} {shlex.quote(json.dumps(value, ensure_ascii=False))}"
