"""Entities from the names of their types alone, before any example: strict F1 on test splits, and what commas become.

OMP_NUM_THREADS=1 FEWSHOT_NLP_DATA=... python evaluation/zero_shot.py --sets bc5cdr ncbi_disease
"""

import argparse

from quality import NER_SETS, chosen_rows

from fewshot_nlp import FewShotNER


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="*", default=NER_SETS)
    parser.add_argument("--split", default="test")
    parser.add_argument("--limit", type=int)
    options = parser.parse_args()
    model = FewShotNER.from_pretrained()
    task = model.pipeline.task
    for name in options.sets:
        examples = task.examples(chosen_rows(name, options.split, options.limit, None))
        labels = task.labels(examples)
        adapted = model.pipeline.adapt([], labels)
        predicted = [p["target"] for p in adapted.predict([e.query for e in examples])]
        scores = task.metrics([e.target for e in examples], predicted, labels)
        marks = [
            tag
            for e, tags in zip(examples, predicted, strict=True)
            for word, tag in zip(e.inputs["tokens"], tags, strict=True)
            if word in {",", "."} and tag.startswith("B-")
        ]
        f1 = scores[task.primary_metric]
        print(
            f"{name}: {f1:.3f} on {len(examples)} rows; entities that begin with a comma or stop: {len(marks)}"
        )


if __name__ == "__main__":
    main()
