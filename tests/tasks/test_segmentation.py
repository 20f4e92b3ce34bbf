"""Words of texts: scripts without blanks, spans that cut words, and evaluation in the words that prediction finds."""

import unicodedata

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from unspaced_rows import LANGUAGES

from fewshot_nlp import FewShotError, FewShotNER
from fewshot_nlp.episode import Episode, Query
from fewshot_nlp.pipeline import Pipeline
from fewshot_nlp.tasks import TASKS
from fewshot_nlp.tasks.tags import tag_spans
from fewshot_nlp.tokenization.segmentation import cut_at, split_words
from fewshot_nlp.tokenization.words import place_words


@pytest.fixture(scope="module")
def characters(tmp_path_factory):
    """A random BERT of two layers whose tokens are the characters of the three languages."""
    letters = sorted(
        {c for rows in LANGUAGES.values() for row in rows for c in row["text"] if not c.isspace()}
    )
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    fast = Tokenizer(models.WordLevel({t: i for i, t in enumerate([*special, *letters])}, unk_token="[UNK]"))
    fast.normalizer = normalizers.NFC()
    fast.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split("", "isolated")]
    )
    fast.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    folder = tmp_path_factory.mktemp("characters")
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=fast, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        model_max_length=64,
    )  # fmt: skip
    config = transformers.BertConfig(
        vocab_size=len(tokenizer), hidden_size=96, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96,
        max_position_embeddings=64,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def spans_of(example):
    offsets = place_words(example.inputs["tokens"], example.inputs["text"])[1]
    return [
        {"start": offsets[a][0], "end": offsets[b - 1][1], "label": t}
        for t, a, b in tag_spans(example.target)
    ]


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_spans_of_unspaced_scripts_come_back_exactly(language):
    rows = LANGUAGES[language]
    assert len(rows) == 30
    task = TASKS.get("ner")()
    for row, example in zip(rows, task.examples(rows), strict=True):
        assert spans_of(example) == row["spans"]
        # no gold span was needed to cut these words, so that prediction finds the same
        assert example.inputs == task.query(row["text"]).inputs


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_entities_of_unspaced_scripts_are_found_at_their_places(language, characters):
    rows = LANGUAGES[language]
    ner = FewShotNER.from_pretrained(characters).adapt(rows)
    assert ner.evaluate(rows)["entity_f1_strict_iob2"] > 0.75
    for row, found in zip(rows, ner.predict([row["text"] for row in rows]), strict=True):
        assert all(row["text"][e["start"] : e["end"]] == e["word"] for e in found)


@pytest.mark.parametrize(
    "name",
    [
        "CJK",
        "HIRAGANA",
        "KATAKANA",
        "HANGUL",
        "THAI",
        "LAO",
        "KHMER",
        "MYANMAR",
        "TIBETAN",
        "BOPOMOFO",
        "YI",
        "TAI",
        "NEW",
        "JAVANESE",
        "BALINESE",
        "CHAM",
    ],
)
def test_every_letter_is_a_word_in_scripts_without_blanks(name):
    letters = [
        chr(n) for n in range(0x0E00, 0xABFF)
        if unicodedata.category(chr(n)) == "Lo" and unicodedata.name(chr(n), "").split()[0] == name
        and "JAMO" not in unicodedata.name(chr(n)) and "JUNGSEONG" not in unicodedata.name(chr(n))
        and "JONGSEONG" not in unicodedata.name(chr(n)) and "CHOSEONG" not in unicodedata.name(chr(n))
    ][:40]  # fmt: skip
    assert len(letters) > 10
    for letter in letters:
        assert split_words(f"{letter}a{letter}") == [(0, 1), (1, 2), (2, 3)], hex(ord(letter))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2024年4月", ["2024", "年", "4", "月"]),
        ("iPhone15を買う", ["iPhone15", "を", "買", "う"]),
        ("한국어를 배워요", ["한", "국", "어", "를", "배", "워", "요"]),
        ("ภาษาไทย", ["ภ", "า", "ษ", "า", "ไ", "ท", "ย"]),
        ("ນ້ຳ", ["ນ້ຳ"]),
        ("Привет, мир", ["Привет", ",", "мир"]),
        ("שלום לכם", ["שלום", "לכם"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("Zoe\u0308 was", ["Zoe\u0308", "was"]),
    ],
)
def test_words_of_other_texts(text, words):
    assert [text[a:b] for a, b in split_words(text)] == words


def test_a_word_may_be_cut_in_several_ways():
    assert split_words("gonna", ["gon|na", "gonn|a"]) == [(0, 3), (3, 4), (4, 5)]
    assert cut_at([(0, 5), (6, 9)], [5, 7, 2, 6]) == [(0, 2), (2, 5), (6, 7), (7, 9)]


@pytest.mark.parametrize(
    ("text", "gold", "found", "right"),
    [
        ("the Londoners came", "London", "Londoners", 0.0),
        ("the Londoners came", "Londoners", "Londoners", 1.0),
        ("a pre-Berlin time", "Berlin", "Berlin", 1.0),
        ("Wienfahrt", "Wien", "Wienfahrt", 0.0),
    ],
)
def test_gold_borders_do_not_help_prediction(text, gold, found, right):
    """A word that only its gold span cuts is predicted whole, and counts as wrong."""
    task = TASKS.get("ner")()
    start = text.index(gold)
    (example,) = task.examples(
        [{"text": text, "spans": [{"start": start, "end": start + len(gold), "label": "CITY"}]}]
    )
    assert task.asked(example) == task.query(text)
    start = text.index(found)
    entity = {"entity_group": "CITY", "start": start, "end": start + len(found)}
    tags = ["B-CITY" if token == found else "O" for token in task.query(text).inputs["tokens"]]
    scores = task.metrics(*task.paired([example], [{"target": tags, "entities": [entity]}]), ["CITY"])
    assert scores["entity_f1_strict_iob2"] == right


def test_models_and_episodes_ask_for_the_text_alone(tiny_encoder_folder, monkeypatch):
    rows = [
        {"text": "the judge paid", "spans": [{"start": 4, "end": 9, "label": "PER"}]},
        {"text": "give the drug", "spans": [{"start": 9, "end": 13, "label": "DRUG"}]},
    ]
    cut = {"text": "drugstore open", "spans": [{"start": 0, "end": 4, "label": "DRUG"}]}
    ner = FewShotNER.from_pretrained(tiny_encoder_folder).adapt(rows)
    task = ner.pipeline.task
    assert task.examples([cut])[0].inputs["tokens"] == ["drug", "store", "open"]
    seen: list[Query] = []
    collate = type(task).collate

    def noted(self, items, labels, tokenizer, *, with_targets, descriptions=None):
        seen.extend([] if with_targets else items)
        return collate(self, items, labels, tokenizer, with_targets=with_targets, descriptions=descriptions)

    monkeypatch.setattr(type(task), "collate", noted)
    ner.evaluate([cut])
    episode = Episode(
        task="ner", support=tuple(task.examples(rows)), query=tuple(task.examples([cut])),
        label_names=("DRUG", "PER"), task_id="t", episode_id="e",
    )  # fmt: skip
    ner.pipeline.predict_episode(episode)
    assert [query.inputs["tokens"] for query in seen] == [["drugstore", "open"]] * 2


def test_rows_of_one_text_that_differ_in_what_they_cut_contradict_each_other(tiny_encoder_folder):
    task = TASKS.get("ner")()
    rows = [
        {"text": "take 10mg now", "spans": [{"start": 5, "end": 7, "label": "NUM"}]},
        {"text": "take 10mg now", "spans": []},
    ]
    assert len(task.dataset(rows).examples) == 1
    with pytest.raises(FewShotError, match="Rows 1 and 2 have the same input"):
        FewShotNER.from_pretrained(tiny_encoder_folder).adapt(rows)


def test_an_episodes_support_set_cuts_its_queries(tiny_encoder_folder):
    spans = [{"start": 5, "end": 7, "label": "NUM"}, {"start": 7, "end": 9, "label": "UNIT"}]
    rows = [{"text": f"take {n}mg now", "spans": spans} for n in (10, 20, 30, 40)]
    ner = FewShotNER.from_pretrained(tiny_encoder_folder)
    task = ner.pipeline.task
    examples = tuple(task.examples(rows))
    episode = Episode(
        task="ner",
        support=examples[:3],
        query=examples[3:],
        label_names=("NUM", "UNIT"),
        task_id="t",
        episode_id="e",
    )
    (found,) = Pipeline(task, ner.pipeline.learner).predict_episode(episode)
    assert len(found["target"]) == 4
