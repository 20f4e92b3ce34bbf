"""Words as slots: the tokens that read them are those of the plain text, whatever kind of tokenizer it is."""

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from fewshot_nlp.tokenization.windows import WindowTokenizer
from fewshot_nlp.tokenization.words import place_words, word_slots

SENTENCES = [
    ["Give", "the", "patient", "10mg", "of", "aspirin", ",", "not", "more", "."],
    ["The", "judge", "'s", "order", "of", "Zo\u00eb", "\u2014", "costs", "5", "\u20ac"],
    ["我", "在", "北", "京", "。"],
]
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]


def _wrapped(made, **options):
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", cls_token="<s>", eos_token="</s>", sep_token="</s>", unk_token="<unk>",
        pad_token="<pad>", model_input_names=["input_ids", "attention_mask"], **options,
    )  # fmt: skip


def byte_level(trim, prefix):
    """As RoBERTa's (trimmed offsets) and GPT-2's or ModernBERT's (offsets that hold the blank)."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    made.train_from_iterator([" ".join(s) for s in SENTENCES] * 4, trainer)
    if trim:
        made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=prefix)
    else:
        made.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
        )
    made.decoder = decoders.ByteLevel()
    return _wrapped(made)


def unigram():
    """As XLM-R's."""
    made = Tokenizer(models.Unigram())
    made.normalizer = normalizers.NFKC()
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=90, special_tokens=SPECIAL, unk_token="<unk>")
    made.train_from_iterator([" ".join(s) for s in SENTENCES] * 4, trainer)
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return _wrapped(made)


def word_piece():
    """As BERT's."""
    made = Tokenizer(models.WordPiece(unk_token="<unk>"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.train_from_iterator(
        [" ".join(s) for s in SENTENCES] * 4,
        trainers.WordPieceTrainer(vocab_size=150, special_tokens=SPECIAL),
    )
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return _wrapped(made)


KINDS = {
    "roberta": lambda: byte_level(trim=True, prefix=False),
    "roberta with a prefix": lambda: byte_level(trim=True, prefix=True),
    "gpt": lambda: byte_level(trim=False, prefix=False),
    "unigram": unigram,
    "word_piece": word_piece,
}


@pytest.fixture(scope="module", params=sorted(KINDS))
def tokenizer(request):
    return KINDS[request.param]()


def test_tokens_of_words_are_those_of_the_plain_text(tokenizer):
    windows, spans, groups = word_slots(WindowTokenizer(tokenizer, 64), [place_words(s) for s in SENTENCES])
    plain = [tokenizer(" ".join(s)) for s in SENTENCES]
    assert windows == [p["input_ids"] for p in plain]
    assert groups.tolist() == [i for i, s in enumerate(SENTENCES) for _ in s]
    places = [(i, *offset) for i, s in enumerate(SENTENCES) for offset in place_words(s)[1]]
    assert spans[:, 0].tolist() == list(range(len(places)))
    for (_, window, first, last), (sentence, start, end) in zip(spans.tolist(), places, strict=True):
        assert window == sentence
        read = [
            t
            for t, (a, b) in enumerate(plain[window].encodings[0].offsets)
            if a < end and b > start and b > a
        ]
        assert (first, last) == (read[0], read[-1] + 1)


def test_every_word_of_a_long_text_is_read_whole_and_far_from_an_edge(tokenizer):
    words = SENTENCES[1] * 12
    cut = WindowTokenizer(tokenizer, 32, stride=8)
    windows, spans, _ = word_slots(cut, [place_words(words)])
    assert len(windows) > 3
    assert spans[np.argsort(spans[:, 0]), 0].tolist() == list(range(len(words)))
    whole = tokenizer(" ".join(words))
    for slot, window, first, last in spans.tolist():
        start, end = place_words(words)[1][slot]
        ids = [
            i
            for i, (a, b) in zip(whole["input_ids"], whole.encodings[0].offsets, strict=True)
            if a < end and b > start and b > a
        ]
        assert windows[window][first:last] == ids


def test_every_sentence_of_a_long_text_has_windows_of_its_own_with_the_tokens_of_the_whole_text(tokenizer):
    words = [*SENTENCES[0], *SENTENCES[1] * 5, ".", *SENTENCES[0]]
    text, places = place_words(words)
    cut = WindowTokenizer(tokenizer, 512)
    short = [*SENTENCES[0], *SENTENCES[0]]
    assert len(word_slots(cut, [place_words(short)]).windows) == 1
    windows, spans, groups = word_slots(cut, [(text, places)], ["a description"])
    assert len(windows) == 4
    assert groups.tolist() == [0] * len(words) + [1]
    special = set(tokenizer.all_special_ids)
    tokens = [t for window in windows[:3] for t in window if t not in special - {tokenizer.unk_token_id}]
    assert tokens == tokenizer(text, add_special_tokens=False)["input_ids"]
    assert spans[: len(words), 0].tolist() == list(range(len(words)))
    lengths = [len(SENTENCES[0]), 5 * len(SENTENCES[1]) + 1, len(SENTENCES[0])]
    assert spans[: len(words), 1].tolist() == [w for w, n in enumerate(lengths) for _ in range(n)]


def test_two_words_may_share_a_token():
    tokenizer = KINDS["word_piece"]()
    text = "patient"
    slots = word_slots(WindowTokenizer(tokenizer, 16), [(text, [(0, 3), (3, 7)])])
    assert slots.spans[:, 2:].tolist() == [[1, 2], [1, 2]]


def test_all_tokens_of_a_description_are_read_whatever_special_tokens_stand_around_it():
    ends = {
        "both": "<s> $A </s>",
        "one, at the end": "$A </s>",
        "two, at the end": "$A </s> <s>",
        "none": "$A",
    }
    for where, template in ends.items():
        tokenizer = byte_level(trim=False, prefix=False)
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=template, special_tokens=[("<s>", 0), ("</s>", 2)]
        )
        slots = word_slots(WindowTokenizer(tokenizer, 64), [], ["the patient", "judge"])
        for slot, text in enumerate(["the patient", "judge"]):
            ids = [slots.windows[w][a] for s, w, a, _ in slots.spans.tolist() if s == slot]
            assert ids == tokenizer(text, add_special_tokens=False)["input_ids"], where
