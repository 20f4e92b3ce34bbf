"""Named-entity recognition in the demonstration."""

from collections.abc import Sequence
from typing import Any

from fewshot_nlp.comparison.page import Marked
from fewshot_nlp.demo.section import K_SHOT, DemoTask, marked
from fewshot_nlp.episode import Example
from fewshot_nlp.models import FewShotNER

INPUTS = {
    "medical": [
        "Start amoxicillin 500 mg three times daily for the pneumonia and repeat the chest X-ray.",
        "Her migraine brings nausea and blurred vision, but the MRI of the brain was clear.",
    ],
    "legal": [
        "On 12 May 2020 the High Court at Ardenholm ordered Brightwater Shipping Ltd to pay £310,000.",
        "Mr Justice Calloway held that section 9 of the Tenancies Act 1998 did not bind the landlord.",
    ],
    "finance": [
        "Petra Lindqvist, treasurer of Halvorsen Foods, put third-quarter revenue at €2.4 billion.",
        "Moorgate Savings will redeem the convertible bond in June 2025 for $180 million.",
    ],
}


def _row(example: Example) -> dict[str, Any]:
    return {"tokens": example.inputs["tokens"], "ner_tags": example.target}


def _show(model: FewShotNER, texts: Sequence[str]) -> list[Marked]:
    shown: list[Marked] = []
    for text, entities in zip(texts, model.predict(texts), strict=True):
        pieces, at = [], 0
        for entity in entities:
            kind = entity["entity_group"]
            told = f"{kind} {entity['score']:.2f}"
            pieces.append((text[at : entity["start"]], "", ""))
            pieces.append(marked(entity["word"], told, list(model.labels).index(kind)))
            at = entity["end"]
        shown.append([*pieces, (text[at:], "", "")])
    return shown


MIDDLE = {"layers": [0.5]}
NO_NAMES = {"learner_config": {"label_names": 0.0}}
BIO = {"task_config": {"scheme": "bio"}}
NER = DemoTask(
    model=FewShotNER,
    title="Named-entity recognition",
    support=f"{K_SHOT} to {2 * K_SHOT} mentions of each of 6 entity types",
    card="{domain}_ner",
    k_shot=K_SHOT,
    row=_row,
    inputs=INPUTS,
    show=_show,
    baselines={
        "prototypes": {"learner": "prototypical", **NO_NAMES, **MIDDLE},
        "nearest neighbour": {"learner": "nearest_neighbour", **NO_NAMES, **MIDDLE, **BIO},
        "logistic regression": {"learner": "linear_probe", **NO_NAMES, **MIDDLE, **BIO},
        "same learner, untrained encoder": {"learner": "context_probe", **MIDDLE, **BIO},
    },
    before="same learner, untrained encoder",
    note="The other methods read the middle layer of the same frozen encoder, and know no label names; all "
    "but prototypes decode BIO tags as the default does.",
)
