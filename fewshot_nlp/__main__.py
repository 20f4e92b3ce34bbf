"""``python -m fewshot_nlp``: the command line."""

from fewshot_nlp.cli import main

main()
