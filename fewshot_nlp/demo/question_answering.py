"""Question answering in the demonstration."""

from collections.abc import Sequence
from typing import Any

from fewshot_nlp.comparison.page import Marked
from fewshot_nlp.demo.section import DemoTask, marked
from fewshot_nlp.episode import Example
from fewshot_nlp.models import FewShotQA

N_SUPPORT = 20
INPUTS = {
    "medical": [
        (
            "Which drug was stopped?",
            "Mr Ekholm came back to the renal clinic on 4 March. His creatinine had risen to 148, so naproxen was "
            "stopped and he was told to drink two litres a day. Amlodipine goes on at 5 mg. Bloods in a fortnight.",
        ),
        (
            "When should the dressing be changed?",
            "Keep the wound dry for two days. After that you may shower. The dressing should be changed every third "
            "day, or sooner if it gets wet; the stitches come out at your surgery after ten days.",
        ),
    ],
    "legal": [
        (
            "How much notice must the tenant give?",
            "Either party may end this agreement. The landlord shall give three months' notice in writing, the tenant "
            "one month, in each case to the end of a calendar month. Keys are returned on the last day.",
        ),
        (
            "Why was the appeal dismissed?",
            "The appellant filed his notice on 19 June. The Court of Appeal at Varnstead dismissed the appeal because "
            "the time limit of fourteen days had run out, and ordered him to pay the costs of both instances.",
        ),
    ],
    "finance": [
        (
            "What drove the higher margin?",
            "Ostrava Paper closed the half-year with sales of €412 million, unchanged on the year. The operating "
            "margin rose to 9.1 percent thanks to lower energy prices. Net debt fell to €150 million.",
        ),
        (
            "When is the loan repaid?",
            "The Lender makes available a term loan of CHF 20 million. Interest is due at the end of each quarter. The "
            "loan is repaid in one sum on 30 September 2031; earlier repayment costs a fee of one percent.",
        ),
    ],
}


def _row(example: Example) -> dict[str, Any]:
    return {**example.inputs, "answers": example.target}


def _show(model: FewShotQA, pairs: Sequence[tuple[str, str]]) -> list[Marked]:
    shown: list[Marked] = []
    for (question, context), found in zip(pairs, model.predict(pairs), strict=True):
        start, end = found["start"], found["end"]
        before, after = (f"{question} {context[:start]}", "", ""), (context[end:], "", "")
        shown.append([before, marked(context[start:end], f"answer {found['score']:.2f}"), after])
    return shown


LAST = {"layers": [-1]}
NO_NAMES = {"learner_config": {"label_names": 0.0}}
QUESTION_ANSWERING = DemoTask(
    model=FewShotQA,
    title="Question answering",
    support=f"{N_SUPPORT} questions, some of which their text does not answer",
    card="{domain}_question_answering",
    k_shot=N_SUPPORT,
    row=_row,
    inputs=INPUTS,
    show=_show,
    baselines={
        "prototypes": {"learner": "prototypical", **NO_NAMES, **LAST},
        "logistic regression": {"learner": "linear_probe", **NO_NAMES, **LAST},
    },
    note="The default moves a span head that was trained, with its adapter, on general questions; the other methods "
    "read the last layer of the frozen encoder. No document is in a support set and among the scored rows.",
)
