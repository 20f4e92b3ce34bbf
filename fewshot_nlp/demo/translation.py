"""Translation in the demonstration."""

from collections.abc import Sequence
from typing import Any

from fewshot_nlp.comparison.page import Marked
from fewshot_nlp.demo.section import DemoTask
from fewshot_nlp.episode import Example
from fewshot_nlp.models import FewShotTranslator

N_SUPPORT = 30
INPUTS = {
    "medical": [
        "Haben Sie Schmerzen?",
        "Ich muss heute zum Arzt gehen.",
    ],
    "legal": [
        "Der Vertrag ist nicht gültig.",
        "Er muss die Miete bezahlen.",
    ],
    "finance": [
        "Die Bank ist heute geschlossen.",
        "Wann bekomme ich mein Geld zurück?",
    ],
}


def _row(example: Example) -> dict[str, Any]:
    return {"translation": {"de": example.inputs["text"], "en": example.target}}


def _show(model: FewShotTranslator, texts: Sequence[str]) -> list[Marked]:
    found = zip(texts, model.predict(texts), strict=True)
    return [[(f"{text} → {translated}", "", "")] for text, translated in found]


TRANSLATION = DemoTask(
    model=FewShotTranslator,
    title="Translation, German to English",
    support=f"{N_SUPPORT} pairs of sentences",
    card="{domain}_translation",
    k_shot=N_SUPPORT,
    row=_row,
    inputs=INPUTS,
    show=_show,
    baselines={},
    learner="nearest_neighbour",
    note="chrF2 of sacrebleu, over the held-out rows together, from 0 to 100. A memory of the pairs "
    "stands beside the small model that ships with the package, and says which words the house uses. The model knows "
    "short everyday sentences; for serious work name a larger one.",
    repeats=3,
)
