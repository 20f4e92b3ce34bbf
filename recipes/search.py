"""Searches for hyperparameters from a YAML file; settings can be overridden: ``--config file.yaml --n_trials 40``."""

import logging
import sys

from fewshot_nlp import FewShotError
from fewshot_nlp.arguments import read_arguments
from fewshot_nlp.search.study import SearchConfig, search


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    for noisy in ("httpx", "accelerate"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        words = [word for word in sys.argv[1:] if word != "--allow-code"]
        result = search(read_arguments(SearchConfig, words), allow_code="--allow-code" in sys.argv)
    except FewShotError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(f"{result.folder}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
