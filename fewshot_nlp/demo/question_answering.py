"""Question answering in the demonstration."""

from collections.abc import Sequence
from typing import Any

from fewshot_nlp.demo.section import Baseline, Piece, Section, Shown
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


def _show(model: FewShotQA, pairs: Sequence[tuple[str, str]]) -> list[Shown]:
    shown = []
    for (question, context), found in zip(pairs, model.predict(pairs), strict=True):
        start, end = found["start"], found["end"]
        pieces = (
            Piece(text=context[:start]),
            Piece(text=context[start:end], tag="answer", score=found["score"]),
            Piece(text=context[end:]),
        )
        shown.append(Shown(pieces=tuple(p for p in pieces if p.text), question=question))
    return shown


QUESTION_ANSWERING = Section(
    model=FewShotQA,
    title="Question answering",
    support=f"{N_SUPPORT} questions, some of which their text does not answer",
    card="{domain}_question_answering",
    knobs={"k_shot": N_SUPPORT, "n_query": 1},
    row=_row,
    inputs=INPUTS,
    show=_show,
    baselines={
        "prototypes": Baseline(learner="prototypical"),
        "logistic regression": Baseline(learner="linear_probe"),
    },
    layers=(-1.0,),
    note="The default moves a span head that was trained, with its adapter, on general questions; the other methods "
    "read the last layer of the frozen encoder. No document is in a support set and among the scored rows.",
)
