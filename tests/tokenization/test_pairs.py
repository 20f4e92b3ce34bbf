"""Language codes of the families of sequence-to-sequence models, by stand-ins for tokenizers that need a network."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import MarianTokenizer, PretrainedConfig, PreTrainedTokenizerFast
from transformers.models.bart.modeling_bart import shift_tokens_right

from fewshot_nlp.backbone.seq2seq import instructions_of
from fewshot_nlp.episode import Example, Query
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.tasks.translation import Translation
from fewshot_nlp.tokenization.pairs import PairTokenizer


class Words:
    """A tokenizer of whole words: ids from 10 on in the order of their coming, end 2, pad 1, unknown 3."""

    eos_token_id, pad_token_id, unk_token_id = 2, 1, 3
    all_special_tokens: tuple[str, ...] = ("<s>", "<pad>", "</s>", "<unk>")

    def __init__(self) -> None:
        self.known: dict[str, int] = {}

    def __len__(self) -> int:
        return 30

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [f"t{i}" for i in ids]

    def convert_tokens_to_ids(self, token: str) -> int:
        return self.codes[token]

    codes: dict[str, int] = {}  # noqa: RUF012 - of a stand-in

    def __call__(
        self, texts: Any = None, text_target: Any = None, add_special_tokens: bool = True, **_: Any
    ) -> Any:
        rows = [
            [self.known.setdefault(word, 10 + len(self.known)) for word in text.split()]
            for text in texts or text_target
        ]
        if add_special_tokens:
            rows = [[*row, 2, *self.source_code()] for row in rows]
        return {"input_ids": rows}

    def source_code(self) -> list[int]:
        return [self.codes[self.src_lang]] if hasattr(self, "src_lang") else []


class T5Tokenizer(Words):
    """No languages at all."""


class MBartTokenizer(Words):
    codes = {"de_DE": 20, "en_XX": 21}  # noqa: RUF012
    lang_code_to_id = codes
    src_lang = "en_XX"


class MBart50Tokenizer(MBartTokenizer):
    """The same codes, but the decoder begins with the end token."""


class NllbTokenizer(Words):
    """Its codes are special tokens only, as in current versions."""

    codes = {"deu_Latn": 22, "eng_Latn": 23}  # noqa: RUF012
    src_lang = "eng_Latn"
    all_special_tokens = (*Words.all_special_tokens, "deu_Latn", "eng_Latn")


class M2M100Tokenizer(Words):
    """Codes are "de", tokens "__de__"."""

    codes = {"de": 24, "en": 25}  # noqa: RUF012
    lang_code_to_token = {"de": "__de__", "en": "__en__"}  # noqa: RUF012
    lang_code_to_id = {"de": 4, "en": 5}  # noqa: RUF012 - not the ids of its tokens
    src_lang = "en"
    tgt_lang = None

    def __call__(self, texts: Any = None, text_target: Any = None, **more: Any) -> Any:
        if text_target is not None:
            self.get_lang_id(self.tgt_lang)  # as the real one, though it is not to be written
        return super().__call__(texts, text_target, **more)

    def get_lang_id(self, code: str) -> int:
        return self.codes[code]


FAMILIES = [
    (T5Tokenizer, "de", "en", [0], []),
    (MBartTokenizer, "de_DE", "en_XX", [21], [20]),
    (MBart50Tokenizer, "de_DE", "en_XX", [0, 21], [20]),
    (NllbTokenizer, "deu_Latn", "eng_Latn", [0, 23], [22]),
    (M2M100Tokenizer, "de", "en", [0, 25], [24]),
]


def pairs(family: type[Words], max_length: int = 12) -> PairTokenizer:
    return PairTokenizer(family(), max_length, start=0, n_classes=32)


@pytest.mark.parametrize(("family", "source", "target", "prefix", "code"), FAMILIES)
def test_prefix_and_source_code(
    family: Any, source: str, target: str, prefix: list[int], code: list[int]
) -> None:
    tokenizer = pairs(family)
    assert tokenizer.prefix(target) == prefix
    assert tokenizer.sources(["guten tag"], source) == [[10, 11, 2, *code]]
    assert tokenizer.targets(["good day"], target) == [[12, 13, 2]]
    assert tokenizer.classes[-3:] == ("t29", "<unused 30>", "<unused 31>")


@pytest.mark.parametrize(("family", "source", "target", "prefix", "code"), FAMILIES)
def test_slots_begin_after_the_prefix(
    family: Any, source: str, target: str, prefix: list[int], code: list[int]
) -> None:
    task = Translation(source="de", target="en", source_code=source, target_code=target)
    examples = task.examples([{"translation": {"de": "guten tag", "en": "good day"}}])
    batch = task.collate(examples, (), pairs(family), with_targets=True)
    assert batch.windows == [[*prefix, 10, 11]]
    assert batch.spans[:, 2].tolist() == [len(prefix) - 1 + i for i in range(3)]
    assert batch.gold.tolist() == [10, 11, 2]  # targets are read first
    assert task.collate(examples, (), pairs(family), with_targets=False).windows == [prefix]


@pytest.mark.parametrize("family", [MBartTokenizer, NllbTokenizer, M2M100Tokenizer])
def test_missing_and_unknown_codes(family: Any) -> None:
    tokenizer = pairs(family)
    some = next(iter(tokenizer.languages))
    with pytest.raises(FewShotError, match=f"source language, but none is given; set source_code .*{some}"):
        tokenizer.sources(["guten tag"], None)
    with pytest.raises(
        FewShotError, match=f"target language, but it has no 'german'; set target_code .*{some}"
    ):
        tokenizer.targets(["guten tag"], "german")


def test_the_window_counts_the_prefix() -> None:
    words = "a b c d e f g h i j"
    assert len(pairs(MBartTokenizer).targets([words], "en_XX")[0]) == 11
    with pytest.raises(FewShotError, match=r"Row 1: the target text has 13 tokens, .* window is 12"):
        pairs(NllbTokenizer).targets([words], "eng_Latn")


def test_directions() -> None:
    tokenizer = pairs(T5Tokenizer)
    assert tokenizer.directions == (None, None)
    tokenizer.tokenizer.source_lang, tokenizer.tokenizer.target_lang = "de", "en"
    assert tokenizer.directions == ("de", "en")
    assert pairs(NllbTokenizer).directions == (None, None)


def test_the_instruction_of_a_model_stands_before_every_text() -> None:
    params = {"translation_en_to_de": {"prefix": "translate English to German: "}, "summarization": {}}
    told = instructions_of(PretrainedConfig(task_specific_params=params))
    tokenizer = PairTokenizer(T5Tokenizer(), 12, 0, 30, told)
    items = [Query({"text": "hello"})]

    def words_read(**options: str) -> int:
        task = Translation(**options).bind(tokenizer)
        return len(task.collate(items, (), tokenizer, with_targets=False).sources[0]) - 1

    assert words_read(source="en", target="de") == 5
    assert words_read(source="de", target="en") == 1
    assert words_read(source="de", target="en", prefix="into English: ") == 3
    assert words_read(source="en", target="de", prefix="") == 1


class TestMarianOfSeveralTargets:
    """Models such as opus-mt-en-ROMANCE read the target language before the text; transformers' own tokenizer."""

    @pytest.fixture(scope="class")
    def tokenizer(self, tiny_translator_folder: Path, tmp_path_factory: Any) -> PairTokenizer:
        folder = tmp_path_factory.mktemp("several") / "marian"
        shutil.copytree(tiny_translator_folder, folder)
        vocabulary = json.loads((folder / "vocab.json").read_text("utf-8"))
        vocabulary |= {code: len(vocabulary) + i for i, code in enumerate((">>fra<<", ">>ita<<"))}
        (folder / "vocab.json").write_text(json.dumps(vocabulary), "utf-8")
        files = [str(folder / name) for name in ("source.spm", "target.spm", "vocab.json")]
        return PairTokenizer(MarianTokenizer(*files), 32, start=0, n_classes=len(vocabulary))

    @pytest.mark.parametrize("given", ["fra", "ita", ">>fra<<"])
    def test_the_code_stands_before_the_text(self, tokenizer: PairTokenizer, given: str) -> None:
        task, text = Translation(source="en", target="xx", target_code=given), "the bank"
        batch = task.collate([Query({"text": text})], (), tokenizer, with_targets=False)
        own = tokenizer.tokenizer(f">>{given.strip('<>')}<< {text}")["input_ids"]
        assert batch.decoder.sources == [own]
        assert own[0] == tokenizer.tokenizer.convert_tokens_to_ids(f">>{given.strip('<>')}<<")

    def test_a_code_in_the_text_stays_alone(self, tokenizer: PairTokenizer) -> None:
        own = tokenizer.tokenizer([">>ita<< the bank"])["input_ids"]
        assert tokenizer.sources([">>ita<< the bank"], None, "fra") == own

    @pytest.mark.parametrize("given", [None, "deu"])
    def test_unknown_codes_are_refused(self, tokenizer: PairTokenizer, given: str | None) -> None:
        with pytest.raises(
            FewShotError, match=r"code for the target language, .*set target_code .* fra, ita"
        ):
            tokenizer.sources(["the bank"], None, given)

    def test_models_of_one_target_read_the_text_alone(self, tiny_translator_folder: Path) -> None:
        tokenizer = MarianTokenizer.from_pretrained(tiny_translator_folder)
        one = PairTokenizer(tokenizer, 32, start=0, n_classes=len(tokenizer))
        assert one.sources(["the bank"], "xx", "en") == tokenizer(["the bank"])["input_ids"]


class TestWindowsOfTheDecoder:
    """The window and its gold tokens are transformers' own labels, shifted to the right."""

    @pytest.mark.parametrize(("family", "begins"), [("bart", [2, 0]), ("led", [2, 0]), ("pegasus", [0])])
    def test_labels_shifted_right(self, family: str, begins: list[int]) -> None:
        bos, pad, end = "<s>", "<pad>", "</s>"
        vocabulary = {bos: 0, pad: 1, end: 2, "<unk>": 3, "good": 4, "day": 5}
        fast = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
        fast.pre_tokenizer = pre_tokenizers.Whitespace()
        single = f"$A {end}" if family == "pegasus" else f"{bos} $A {end}"
        fast.post_processor = processors.TemplateProcessing(
            single=single, special_tokens=[(bos, 0), (end, 2)]
        )
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=fast, bos_token=bos, pad_token=pad, eos_token=end, unk_token="<unk>"
        )
        start = begins[0]
        labels = torch.tensor(tokenizer(text_target=["good day"])["input_ids"])
        shifted = shift_tokens_right(labels, 1, start)[0].tolist()
        own = PairTokenizer(tokenizer, 12, start=start, n_classes=6)
        batch = Translation(source="de", target="en").collate(
            [Example({"text": "day"}, "good day")], (), own, with_targets=True
        )
        assert own.prefix() == begins
        assert batch.windows == [shifted]
        assert batch.gold.tolist() == [4, 5, 2]
        assert batch.spans[:, 2].tolist() == list(range(len(begins) - 1, len(begins) + 2))
