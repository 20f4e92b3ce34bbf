"""Tokenising sources and targets of a sequence-to-sequence model, with language codes where it has them."""

from collections.abc import Mapping, Sequence
from typing import Any

from fewshot_nlp.errors import FewShotError
from fewshot_nlp.locks import shared_lock
from fewshot_nlp.rows import ItemError


class PairTokenizer:
    """A Hugging Face tokenizer of a sequence-to-sequence model that never truncates. Safe to call from several threads.

    Args:
        tokenizer: fast or slow; Marian, T5, BART, mBART, M2M100 and NLLB are known.
        max_length: tokens that a side may have, special tokens included.
        start: token that the decoder begins with.
        n_classes: tokens that the model predicts; may be more than the tokenizer has, by padding.
        instructions: what some models were trained to read before a text, by direction ("en_to_de").
    """

    def __init__(
        self,
        tokenizer: Any,
        max_length: int,
        start: int,
        n_classes: int,
        instructions: Mapping[str, str] | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.instructions = dict(instructions or {})
        self.max_length = max_length
        self.start = start
        self.end = int(tokenizer.eos_token_id)
        self.languages = _language_codes(tokenizer)
        self.target_codes = frozenset(getattr(tokenizer, "supported_language_codes", None) or ())
        self._begin: list[int] | None = None
        known = tokenizer.convert_ids_to_tokens(list(range(min(n_classes, len(tokenizer)))))
        self.classes = (*map(str, known), *(f"<unused {i}>" for i in range(len(known), n_classes)))
        self._lock = shared_lock()

    @property
    def directions(self) -> tuple[str | None, str | None]:
        """The only languages that the model was made for, as its files name them; None where they do not say."""
        if self.languages:
            return None, None
        source, target = (
            getattr(self.tokenizer, f"{side}_lang", None) or None for side in ("source", "target")
        )
        return source, target

    def sources(
        self, texts: Sequence[str], language: str | None = None, target: str | None = None
    ) -> list[list[int]]:
        """Token ids of texts to translate, special tokens included.

        Args:
            texts: to translate.
            language: of the texts.
            target: language to translate into, which Marian models of several read before the text (">>fra<<").

        Raises:
            ItemError: a text is longer than the model's window.
            FewShotError: a language is missing or unknown.
        """
        code = self._code(language, "source")
        if self.target_codes:
            texts = [self._addressed(text, target) for text in texts]
        with self._lock:
            if code is not None:
                self.tokenizer.src_lang = code
            rows = self.tokenizer(list(texts), verbose=False)["input_ids"] if texts else []
        self._check(rows, texts, "source")
        return [list(row) for row in rows]

    def targets(self, texts: Sequence[str], language: str | None = None) -> list[list[int]]:
        """Token ids of translations, each with the end token, without what the decoder begins with."""
        rows = [[*row, self.end] for row in self.bare_targets(texts, language)]
        self._check(rows, texts, "target", len(self.prefix(language)))
        return rows

    def bare_targets(self, texts: Sequence[str], language: str | None = None) -> list[list[int]]:
        """Token ids of target texts without any special token."""
        code = self._code(language, "target")
        with self._lock:
            if code is not None:
                self.tokenizer.tgt_lang = code  # M2M100 looks it up even where it is not asked to write it
            return (
                self.tokenizer(text_target=list(texts), add_special_tokens=False, verbose=False)["input_ids"]
                if texts
                else []
            )

    def prefix(self, language: str | None = None) -> list[int]:
        """What the decoder begins with: the start token, and the target language's where there are languages."""
        code = self._code(language, "target")
        if code is None:
            return [self.start, *self._beginning()]
        number = self.languages[code]
        alone = type(self.tokenizer).__name__.startswith("MBartTokenizer")
        return [number] if alone else [self.start, number]

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """Texts of generated token ids."""
        with self._lock:
            texts = self.tokenizer.batch_decode([list(row) for row in rows], skip_special_tokens=True)
        return [str(text).strip() for text in texts]

    def _beginning(self) -> list[int]:
        """What stands before the text in the labels that the tokenizer makes itself (BART: its "<s>")."""
        if self._begin is None:
            with self._lock:
                own = list(self.tokenizer(text_target=[""], verbose=False)["input_ids"][0])
            begin = own[: own.index(self.end)] if self.end in own else []
            self._begin = [token for token in begin if token == self.tokenizer.bos_token_id]
        return self._begin

    def _addressed(self, text: str, target: str | None) -> str:
        """A text with the code of the language to translate into before it, unless it has one."""
        if any(text.startswith(code) for code in self.target_codes):
            return text
        found = next((code for code in (target, f">>{target}<<") if code in self.target_codes), None)
        if found is None:
            raise self._unknown(target, "target", [code.strip("<>") for code in self.target_codes])
        return f"{found} {text}"

    def _code(self, language: str | None, side: str) -> str | None:
        """The model's code of a language; None for models without."""
        if not self.languages:
            return None
        if language in self.languages:
            return language
        raise self._unknown(language, side, list(self.languages))

    @staticmethod
    def _unknown(language: str | None, side: str, codes: Sequence[str]) -> FewShotError:
        near = [code for code in codes if language and code.startswith(language[:2])]
        some = ", ".join(sorted(near or codes)[:6])
        given = "none is given" if language is None else f"it has no {language!r}"
        return FewShotError(
            f"This model needs a code for the {side} language, but {given}; set {side}_code in task_config, "
            f"e.g. {some}."
        )

    def _check(self, rows: Sequence[Sequence[int]], texts: Sequence[str], side: str, more: int = 0) -> None:
        for index, (row, text) in enumerate(zip(rows, texts, strict=True)):
            if len(row) + more > self.max_length:
                raise ItemError(
                    index,
                    f"the {side} text has {len(row) + more} tokens, but the model's window is {self.max_length}; "
                    f"divide it into sentences. It begins: {text[:40]!r}.",
                )


def _language_codes(tokenizer: Any) -> dict[str, int]:
    """Language codes of a tokenizer that puts them into its sequences, and their token ids."""
    known = getattr(tokenizer, "lang_code_to_id", None)
    if isinstance(known, dict) and known:
        if hasattr(tokenizer, "get_lang_id"):  # M2M100: codes are "de", tokens "__de__"
            return {code: int(tokenizer.get_lang_id(code)) for code in tokenizer.lang_code_to_token}
        return {code: int(number) for code, number in known.items()}
    if not hasattr(tokenizer, "src_lang"):
        return {}
    special = getattr(tokenizer, "additional_special_tokens", None) or tokenizer.all_special_tokens
    codes = [token for token in special if "_" in token and token[:1].isalpha()]
    return {code: int(tokenizer.convert_tokens_to_ids(code)) for code in codes}
