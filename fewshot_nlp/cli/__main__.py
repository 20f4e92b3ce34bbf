"""``python -m fewshot_nlp.cli``."""

from fewshot_nlp.cli import main

main()
