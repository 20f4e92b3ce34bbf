"""Classification in the demonstration."""

from collections.abc import Sequence
from typing import Any

from fewshot_nlp.comparison.page import Marked
from fewshot_nlp.demo.section import K_SHOT, DemoTask, marked
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


def _show(model: FewShotClassifier, texts: Sequence[str]) -> list[Marked]:
    shown: list[Marked] = []
    for text, row in zip(texts, model.predict_proba(texts), strict=True):
        first, *others = (-row).argsort()[:LIKELIEST].tolist()
        rest = "".join(f", then {model.labels[i]} {row[i]:.2f}" for i in others)
        label = marked(str(model.labels[first]), f"{row[first]:.2f}", first)
        shown.append([(f"{text} → ", "", ""), label, (rest, "", "")])
    return shown


LAST = {"layers": [-1]}
NO_NAMES = {"learner_config": {"label_names": 0.0}}
CLASSIFICATION = DemoTask(
    model=FewShotClassifier,
    title="Text classification",
    support=f"{K_SHOT} texts of each of 7 labels",
    card="{domain}_classification",
    k_shot=K_SHOT,
    row=_row,
    inputs=INPUTS,
    show=_show,
    baselines={
        "prototypes": {"learner": "prototypical", **NO_NAMES, **LAST},
        "nearest neighbour": {"learner": "nearest_neighbour", **NO_NAMES, **LAST},
        "logistic regression": {"learner": "linear_probe", **NO_NAMES, **LAST},
        "not tuned": {"learner": "stacked_probe", **LAST},
    },
    note="The other methods read the last layer of the same frozen encoder; only the one that is not tuned, which "
    "is the default without its tuning, knows the label names.",
    before="not tuned",
    repeats=3,  # each is tuned
)
