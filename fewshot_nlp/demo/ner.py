"""Named-entity recognition in the demonstration."""

from collections.abc import Sequence
from typing import Any

from fewshot_nlp.demo.section import K_SHOT, Baseline, Piece, Section, Shown
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


def _show(model: FewShotNER, texts: Sequence[str]) -> list[Shown]:
    shown = []
    for text, entities in zip(texts, model.predict(texts), strict=True):
        pieces, at = [], 0
        for entity in entities:
            pieces += [
                Piece(text=text[at : entity["start"]]),
                Piece(text=entity["word"], tag=entity["entity_group"], score=entity["score"]),
            ]
            at = entity["end"]
        pieces.append(Piece(text=text[at:]))
        shown.append(Shown(pieces=tuple(piece for piece in pieces if piece.text)))
    return shown


NER = Section(
    model=FewShotNER,
    title="Named-entity recognition",
    support=f"{K_SHOT} to {2 * K_SHOT} mentions of each of 6 entity types",
    card="{domain}_ner",
    knobs={"n_way": None, "k_shot": K_SHOT, "n_query": 1, "query": "rows"},
    row=_row,
    inputs=INPUTS,
    show=_show,
    baselines={
        "prototypes": Baseline(learner="prototypical"),
        "nearest neighbour": Baseline(learner="nearest_neighbour", task_config={"scheme": "bio"}),
        "logistic regression": Baseline(learner="linear_probe", task_config={"scheme": "bio"}),
        "same learner, untrained encoder": Baseline(
            learner="context_probe", learner_config={}, task_config={"scheme": "bio"}
        ),
    },
    layers=(0.5,),
    before="same learner, untrained encoder",
    note="The other methods read the middle layer of the same frozen encoder, and know no label names; all "
    "but prototypes decode BIO tags as the default does.",
)
