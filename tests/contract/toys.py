"""A small separable problem for each task: words give the answer away."""

import numpy as np

FILLER = ["the", "my", "to", "a", "in", "of", "on", "was", "with", "for"]
CUES = {
    "medicine": ["aspirin", "dose", "drug", "blood", "pain"],
    "money": ["bank", "card", "cash", "paid", "stock"],
    "law": ["court", "judge", "law", "order", "letter"],
}


def _sentence(rng, cues, n_cues, length=7):
    words = list(rng.choice(FILLER, size=length))
    places = rng.choice(length, size=n_cues, replace=False)
    for place in places:
        words[place] = str(rng.choice(cues))
    return [str(w) for w in words], sorted(int(p) for p in places)


def classification_rows(n_per_label, seed):
    rng = np.random.default_rng([seed, 1])
    rows = []
    for _ in range(n_per_label):
        for label, cues in CUES.items():
            words, _ = _sentence(rng, cues, n_cues=4)
            rows.append({"text": " ".join(words), "label": label})
    return rows


def ner_rows(n_per_label, seed):
    rng = np.random.default_rng([seed, 2])
    rows = []
    for _ in range(n_per_label):
        for label, cues in CUES.items():
            words, places = _sentence(rng, cues, n_cues=2)
            tags = ["O"] * len(words)
            for place in places:
                tags[place] = "I-" if place and tags[place - 1] != "O" else "B-"
                tags[place] += label
            rows.append({"tokens": words, "ner_tags": tags})
    return rows


def question_answering_rows(n_per_label, seed):
    """The answer is the one cue word; every fifth context has none, and the question no answer."""
    rng = np.random.default_rng([seed, 3])
    rows = []
    for number in range(len(CUES) * n_per_label):
        cues = CUES[list(CUES)[number % len(CUES)]]
        words, places = _sentence(rng, cues, n_cues=int(number % 5 != 4))
        starts = [len(" ".join([*words[:place], ""])) for place in places]
        answers = {"text": [words[place] for place in places], "answer_start": starts}
        rows.append({"question": "what was it", "context": " ".join(words), "answers": answers})
    return rows


ROWS = {
    "classification": classification_rows,
    "ner": ner_rows,
    "question_answering": question_answering_rows,
}
BAR = {"classification": 0.6, "ner": 0.25, "question_answering": 0.4}
"""What each toy's primary metric must reach with 10 rows a label.

Chance is 0.33 for classification, about 0.08 for entities, and about 0.2 for answers (never to answer, or always the
same place).
"""


def text_of(row):
    """What tells a row's input from another's."""
    return str(row.get("text") or row.get("tokens") or row.get("context"))


def unique(rows):
    """Rows without repeated inputs."""
    seen, result = set(), []
    for row in rows:
        key = text_of(row)
        if key not in seen:
            seen.add(key)
            result.append(row)
    return result


def rename(rows, names):
    """Rows with other label names; where there are no labels, with another answer."""
    result = []
    for row in rows:
        row = dict(row)
        if "label" in row:
            row["label"] = names[row["label"]]
        if "ner_tags" in row:
            row["ner_tags"] = [t if t == "O" else t[:2] + names[t[2:]] for t in row["ner_tags"]]
        if "answers" in row:
            row["answers"] = {"text": [row["context"].split()[0]], "answer_start": [0]}
        result.append(row)
    return result
