"""Classification in the demonstration."""

from collections.abc import Sequence
from typing import Any

from fewshot_nlp.demo.section import K_SHOT, Baseline, Piece, Section, Shown
from fewshot_nlp.episode import Example
from fewshot_nlp.models import FewShotClassifier

LIKELIEST = 2

INPUTS = {
    "medical": [
        "Down to my last three blood pressure tablets. Could another month's worth go to the chemist?",
        "Since starting the new inhaler my voice has gone hoarse and my tongue is coated white.",
        "The receptionist left a voicemail saying my thyroid numbers are back. Are they all right?",
    ],
    "legal": [
        "Each party shall keep the other's business plans to itself and show them to nobody.",
        "Either side may walk away from this lease by giving ninety days' notice in writing.",
        "Invoices fall due thirty days after receipt; later sums bear interest at four per cent a year.",
    ],
    "finance": [
        "Somebody bought two concert tickets with my card in Lisbon, and I was at home in bed.",
        "I lost my job in March and cannot manage the full instalment, could we halve it until summer?",
        "I sent 400 euros to my sister on Monday and she still sees nothing on her side.",
    ],
}


def _row(example: Example) -> dict[str, Any]:
    return {"text": example.inputs["text"], "label": example.target}


def _show(model: FewShotClassifier, texts: Sequence[str]) -> list[Shown]:
    shown = []
    for text, row in zip(texts, model.predict_proba(texts), strict=True):
        order = (-row).argsort()[:LIKELIEST]
        answers = tuple((model.labels[i], float(row[i])) for i in order)
        shown.append(Shown(pieces=(Piece(text=text),), answers=answers))
    return shown


CLASSIFICATION = Section(
    model=FewShotClassifier,
    title="Text classification",
    support=f"{K_SHOT} texts of each of 7 labels",
    card="{domain}_classification",
    knobs={"n_way": None, "k_shot": K_SHOT, "n_query": 1},
    row=_row,
    inputs=INPUTS,
    show=_show,
    baselines={
        "prototypes": Baseline(learner="prototypical"),
        "nearest neighbour": Baseline(learner="nearest_neighbour"),
        "logistic regression": Baseline(learner="linear_probe"),
        "not tuned": Baseline(learner="stacked_probe", learner_config={}),
    },
    layers=(-1,),
    note="The other methods read the last layer of the same frozen encoder; only the one that is not tuned, which "
    "is the default without its tuning, knows the label names.",
    before="not tuned",
    most_seeds=2,  # each is tuned
)
