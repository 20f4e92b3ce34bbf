"""Files beside JSON, CSV and CoNLL: Excel, Parquet, spaCy's DocBin, fastText lines, WebAnno TSV, TMX; and folders."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fewshot_nlp.errors import FewShotError, listed, logger
from fewshot_nlp.rows import records
from fewshot_nlp.sources.bioc import parse_xml

Row = dict[str, Any]
FASTTEXT = re.compile(r"(?:__label__\S+[ \t]+)+(?=\S)")
WEBANNO = "#FORMAT=WebAnno TSV"
XML_LANG = "{http://www.w3.org/XML/1998/namespace}lang"


def read_excel(path: Path) -> list[Row]:
    """Rows of the first sheet but blank ones; its first line names the columns. Needs openpyxl."""
    import pandas

    try:
        sheets = pandas.read_excel(path, sheet_name=None, keep_default_na=False)  # "NA" may be a label
    except ImportError as error:
        raise FewShotError(
            f'{path}: Excel files need openpyxl: pip install "fewshot_nlp[excel]", or save as CSV.'
        ) from error
    except Exception as error:
        raise FewShotError(f"{path} is no Excel file ({type(error).__name__}); save it as CSV.") from error
    first, *others = sheets
    if others:
        logger.warning("%s: of the sheets %s the first is read.", path, listed([first, *others]))
    return [row for row in records(sheets[first]) if any(cell != "" for cell in row.values())]


def read_parquet(path: Path) -> list[Row]:
    """Rows of a Parquet file."""
    from pyarrow import ArrowException
    from pyarrow.parquet import read_table

    try:
        return list(records(read_table(path)))
    except (ArrowException, OSError) as error:
        raise FewShotError(
            f"{path} is no whole Parquet file ({type(error).__name__}); write it again."
        ) from error


def read_docbin(path: Path) -> list[Row]:
    """Documents of spaCy's binary form. Needs spaCy."""
    try:
        import spacy
        from spacy.tokens import DocBin
    except ImportError as error:
        raise FewShotError(f"{path}: spaCy's files need spaCy: pip install spacy, or write JSON.") from error
    try:
        documents = list(DocBin().from_disk(path).get_docs(spacy.blank("xx").vocab))
    except Exception as error:
        raise FewShotError(
            f"{path} is no DocBin of spaCy ({type(error).__name__}); write it again."
        ) from error
    return [of_document(document) for document in documents]


def of_document(document: Any) -> Row:
    """A spaCy `Doc` as a row: its text, entities, and its likeliest category where it has any."""
    spans = [{"start": e.start_char, "end": e.end_char, "label": e.label_} for e in document.ents]
    row: Row = {"text": document.text, "spans": spans}
    if document.cats:
        row["label"] = max(document.cats, key=document.cats.get)
    return row


def is_document(value: Any) -> bool:
    """Whether a value is a spaCy `Doc`."""
    return all(hasattr(value, name) for name in ("ents", "cats", "text"))


def parse_fasttext(text: str, path: Path) -> list[Row]:
    """Lines of ``__label__X text``; several labels before a text become its list of labels."""
    rows: list[Row] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        found = FASTTEXT.match(line)
        if found is None:
            raise FewShotError(f"{path}, line {number}: no __label__ before a text, as in the first line.")
        labels = [name.removeprefix("__label__") for name in found.group().split()]
        rows.append({"text": line[found.end() :].strip(), "labels": labels})
    return rows


def parse_webanno(text: str, path: Path) -> list[Row]:
    """WebAnno TSV 3, as INCEpTION writes it: of its layers the named entities, else the first, by their value."""
    place = 3 + _layer(text)
    rows: list[Row] = []
    words: list[str] = []
    tags: list[str] = []
    before = ""
    for number, line in enumerate([*text.replace("\r\n", "\n").split("\n"), ""], start=1):
        if line.startswith("#"):
            continue
        if not line.strip():
            if words:
                rows.append({"tokens": words, "ner_tags": tags})
            words, tags, before = [], [], ""
            continue
        cells = line.split("\t")
        if len(cells) < 3:
            raise FewShotError(f"{path}, line {number}: {len(cells)} cells, but WebAnno TSV has at least 3.")
        if "." in cells[0]:  # a part of a word
            continue
        value = (cells[place] if len(cells) > place else "_").split("|")[0].replace("\\", "")
        value = "_" if value.startswith("*") or not value else value
        name = re.sub(r"\[\d+\]$", "", value)
        words.append(cells[2])
        tags.append("O" if value == "_" else f"{'I' if value == before and '[' in value else 'B'}-{name}")
        before = value
    return rows


def _layer(text: str) -> int:
    """The place of the column with types among those that the header lists."""
    columns = [
        (layer, feature)
        for line in text.split("\n")
        if line.startswith("#T_")
        for layer, *features in [line.strip().partition("=")[2].split("|")]
        for feature in features
    ]

    def rank(place: int) -> tuple[bool, bool, int]:
        layer, feature = columns[place]
        return "NamedEntity" not in layer, feature != "value", place

    return min(range(len(columns)), key=rank, default=0)


def parse_tmx(text: str, path: Path) -> list[Row]:
    """Pairs of a translation memory; a unit with other than two languages is refused."""
    root = parse_xml(text, path)
    rows = []
    for number, unit in enumerate(root.iter("tu"), start=1):
        pair = {
            (v.get(XML_LANG) or v.get("lang") or "?").lower().split("-")[0]: "".join(
                part for seg in v.findall("seg") for part in seg.itertext()
            )
            for v in unit.findall("tuv")
        }
        if len(pair) != 2:
            raise FewShotError(
                f"{path}: unit {number} has {len(pair)} languages ({', '.join(pair)}), not two."
            )
        rows.append({"translation": pair})
    return rows


def read_folder(path: Path) -> tuple[list[Row], str] | None:
    """A folder that `datasets` wrote, brat's texts with their annotations, or a folder of texts a class; else None.

    Returns:
        The rows, and what wrote them, in words.
    """
    if (path / "dataset_info.json").is_file() or (path / "dataset_dict.json").is_file():
        import datasets

        from fewshot_nlp.sources.features import named_rows

        found = datasets.load_from_disk(str(path))
        return named_rows(found["train"] if isinstance(found, datasets.DatasetDict) else found), "datasets"
    if any(path.glob("*.ann")):
        bare = [file.name for file in sorted(path.glob("*.txt")) if not file.with_suffix(".ann").is_file()]
        if bare:
            logger.warning("%s: left out, as they have no annotations: %s.", path, listed(bare))
        return [_brat(file) for file in sorted(path.glob("*.ann"))], "brat"
    below = sorted({file.parent.name for file in path.glob("*/*.ann")})
    if below:
        raise FewShotError(f"{path} has brat's annotations in the folders {listed(below)}; name one of them.")
    texts = sorted(path.glob("*/*.txt"))
    rows = [{"text": _text(file), "label": file.parent.name} for file in texts]
    return (rows, "a folder a class") if rows else None


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FewShotError(f"{path} is not UTF-8; save it as UTF-8.") from error


def _brat(path: Path) -> Row:
    """Text-bound annotations of a document; one in pieces reaches from its first character to its last."""
    source = path.with_suffix(".txt")
    if not source.is_file():
        raise FewShotError(f"{path} has no {source.name} beside it, which it annotates.")
    return {"text": _text(source), "spans": list(_bound(_text(path), path))}


def _bound(text: str, path: Path) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.startswith("T"):
            continue
        found = re.match(r"T\d+\t(\S+) ([\d ;]+)(?:\t|$)", line)
        if found is None:
            raise FewShotError(f"{path}, line {number}: no type and offsets after {line.split()[0]!r}.")
        places = [int(place) for place in re.findall(r"\d+", found.group(2))]
        yield {"start": places[0], "end": places[-1], "label": found.group(1)}
