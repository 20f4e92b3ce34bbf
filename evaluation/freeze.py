"""Draws the rows of benchmarks anew and writes their manifests: what is measured changes.

FEWSHOT_NLP_DATA=... python evaluation/freeze.py cross_domain_ner
"""

import sys

from fewshot_nlp.comparison.benchmark import freeze

if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(name, freeze(name))
