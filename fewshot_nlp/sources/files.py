"""Files of many kinds to items: what reads each, told by the end of its name and by its first line."""

import gzip
import re
import zlib
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from fewshot_nlp.errors import FewShotError, did_you_mean, logger
from fewshot_nlp.sources.bioc import parse_bioc
from fewshot_nlp.sources.cards import card_names
from fewshot_nlp.sources.conll import parse_conll
from fewshot_nlp.sources.json_files import parse_lines, parse_list
from fewshot_nlp.sources.other_files import (
    FASTTEXT,
    WEBANNO,
    parse_fasttext,
    parse_tmx,
    parse_webanno,
    read_docbin,
    read_excel,
    read_folder,
    read_parquet,
)
from fewshot_nlp.sources.tables import parse_table

Row = dict[str, Any]
Parser = Callable[[str, Path], list[Row]]


def parse_tabs(text: str, path: Path) -> list[Row]:
    """A table whose cells are parted by tabs."""
    return parse_table(text, path, "\t")


def _parser(kind: str, text: str) -> Parser:
    """What reads a text, by the end of the file's name; .txt is fastText lines or CoNLL, .tsv also WebAnno's."""
    if kind == ".txt" and FASTTEXT.match(text.lstrip()):
        return parse_fasttext
    if kind == ".tsv" and text.startswith(WEBANNO):
        return parse_webanno
    if kind == ".tsv" and re.match(r"(-DOCSTART-.*\s+)?\S+\t(.*\t)?(O|[BIESLU]-\S+)\r?\n", text):
        return parse_conll  # its first line ends in a tag
    return PARSERS[kind]


PARSERS: Mapping[str, Parser] = {
    ".jsonl": parse_lines,
    ".jsonl.gz": parse_lines,
    ".ndjson": parse_lines,
    ".json": parse_list,
    ".csv": parse_table,
    ".tsv": parse_tabs,
    ".conll": parse_conll,
    ".conllu": parse_conll,
    ".iob": parse_conll,
    ".bio": parse_conll,
    ".txt": parse_conll,
    ".tmx": parse_tmx,
    ".xml": parse_bioc,
}
"""What reads the text of a file, by the end of its name; `_parser` looks into the text, too."""
BINARY: Mapping[str, Callable[[Path], list[Row]]] = {
    ".parquet": read_parquet,
    ".xlsx": read_excel,
    ".xls": read_excel,
    ".spacy": read_docbin,
}
"""What reads a file that is no text."""
NAMES: Mapping[Callable[..., list[Row]], str] = {
    parse_lines: "JSON lines",
    parse_list: "JSON",
    parse_table: "a table",
    parse_tabs: "a table",
    parse_conll: "CoNLL",
    parse_fasttext: "fastText",
    parse_webanno: "WebAnno TSV",
    parse_tmx: "a translation memory",
    parse_bioc: "BioC",
    read_parquet: "Parquet",
    read_excel: "Excel",
    read_docbin: "spaCy's DocBin",
}
"""What a reader reads, for the log."""


def read_file(path: Path, given: str) -> tuple[list[Row], str]:
    """Items of a file or folder, and what it is, in words."""
    if path.is_dir():
        found = read_folder(path)
        if found is not None:
            return found
        inside = sorted(p.name for p in path.iterdir() if _kind(p))
        raise FewShotError(
            f"{path} is a folder; name one file in it: {', '.join(inside[:8]) or 'it has none to read'}."
        )
    if not path.is_file():
        hint = ""
        if given in card_names():
            hint = f" It is the name of a data set card: pass load_rows({given!r}, 'train')."
        elif path.parent.is_dir():
            near = get_close_matches(path.name, [p.name for p in path.parent.iterdir()], n=1)
            hint = f" Did you mean {str(path.with_name(near[0]))!r}?" if near else ""
        raise FewShotError(f"There is no file {given!r} (looked for {path.absolute()}).{hint}")
    if path.suffix.lower() in BINARY:
        read = BINARY[path.suffix.lower()]
        return read(path), NAMES[read]
    kind = _kind(path)
    if kind is None:
        known = [*PARSERS, *BINARY]
        raise FewShotError(
            f"{path} ends in {path.suffix or 'nothing'!r}; files are read that end in: {', '.join(known)}. "
            f"For others pass a datasets.Dataset or a list of dictionaries.{did_you_mean(path.suffix, known)}"
        )
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if kind.endswith(".gz") else data
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise FewShotError(f"{path} is not a whole gzip file ({error}); copy it again.") from error
    text = _decoded(data, path)
    parse = _parser(kind, text)
    return parse(text, path), NAMES[parse]


def _decoded(data: bytes, path: Path) -> str:
    """UTF-8, UTF-16 where its mark says so, or the likeliest encoding, which is logged."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace")
    said = re.match(rb"""\s*<\?xml[^>]*encoding=["']([\w-]+)""", data)
    try:
        return data.decode("utf-8-sig" if said is None else said.group(1).decode())
    except LookupError:
        raise FewShotError(f"{path} names an unknown encoding; save it as UTF-8.") from None
    except UnicodeDecodeError as error:
        from charset_normalizer import from_bytes

        guess = from_bytes(data).best()
        line = data.count(b"\n", 0, error.start) + 1
        if guess is None:
            raise FewShotError(
                f"{path}, line {line}: not UTF-8 (byte 0x{data[error.start]:02x}); save the file as UTF-8."
            ) from error
        logger.warning(
            "%s, line %d: not UTF-8 (byte 0x%02x); read as %s, which is a guess.",
            path,
            line,
            data[error.start],
            guess.encoding,
        )
        return str(guess)


def parallel_lines(first: Path, second: Path) -> list[Row]:
    """Two files of parallel lines, whose endings name the languages."""
    sides = []
    for path in (first, second):
        if not path.is_file():
            raise FewShotError(f"There is no file {str(path)!r} of parallel lines.")
        sides.append(_decoded(path.read_bytes(), path).replace("\r\n", "\n").rstrip("\n").split("\n"))
    if len(sides[0]) != len(sides[1]):
        raise FewShotError(
            f"{first} has {len(sides[0])} lines, but {second} has {len(sides[1])}; each needs its pair."
        )
    names = [path.suffix[1:] or path.name for path in (first, second)]
    return [{"translation": dict(zip(names, pair, strict=True))} for pair in zip(*sides, strict=True)]


def _kind(path: Path) -> str | None:
    name = path.name.lower()
    return next((end for end in PARSERS if name.endswith(end)), None)
