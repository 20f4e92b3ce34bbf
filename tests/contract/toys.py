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


ROWS = {"classification": classification_rows, "ner": ner_rows}
BAR = {"classification": 0.6, "ner": 0.25}
"""What each toy's primary metric must reach with 10 rows a label: chance is 0.33, and for entities about 0.08."""


def unique(rows):
    """Rows without repeated inputs."""
    seen, result = set(), []
    for row in rows:
        key = str(row.get("text") or row.get("tokens"))
        if key not in seen:
            seen.add(key)
            result.append(row)
    return result


def rename(rows, names):
    """Rows with other label names."""
    result = []
    for row in rows:
        row = dict(row)
        if "label" in row:
            row["label"] = names[row["label"]]
        if "ner_tags" in row:
            row["ner_tags"] = [t if t == "O" else t[:2] + names[t[2:]] for t in row["ner_tags"]]
        result.append(row)
    return result
