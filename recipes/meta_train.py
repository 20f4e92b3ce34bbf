"""Meta-trains from a YAML file; any setting can be overridden: ``--config file.yaml --outer.steps 2``."""

import logging
import os
import sys

from fewshot_nlp import FewShotError
from fewshot_nlp.training import meta_train, parse_config


def main() -> int:
    first = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(
        level=logging.INFO if first else logging.ERROR, format="%(levelname)s %(name)s: %(message)s"
    )
    for noisy in ("httpx", "accelerate"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        result = meta_train(parse_config(sys.argv[1:]))
    except FewShotError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    if first:
        sys.stdout.write(f"{result.folder}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
