"""BioC, as XML and as JSON: documents, their passages, and annotations by their offset in the document.

Source: Comeau et al. (2013), BioC: a minimalist approach to interoperability for biomedical text processing.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from fewshot_nlp.errors import FewShotError

Row = dict[str, Any]


def parse_bioc(text: str, path: Path) -> list[Row]:
    """Documents of a collection in XML, as its JSON has them."""
    root = parse_xml(text, path)
    if root.tag != "collection":
        raise FewShotError(f"{path}: its XML begins with <{root.tag}>, but BioC with <collection>.")
    return [{"passages": [_part(p) for p in document.iter("passage")]} for document in root.iter("document")]


def parse_xml(text: str, path: Path) -> ElementTree.Element:
    """The root of an XML file without entities of its own.

    Raises:
        FewShotError: entities are declared, or it is not well-formed.
    """
    if "<!ENTITY" in text:
        raise FewShotError(f"{path}: declares XML entities, which are not read; remove them.")
    try:
        declared = text.find("?>") + 2 if text.lstrip().startswith("<?xml") else 0
        return ElementTree.fromstring(text[declared:].encode())
    except ElementTree.ParseError as error:
        raise FewShotError(f"{path}: no well-formed XML ({error}).") from error


def _part(element: ElementTree.Element) -> Row:
    """A passage, or a sentence of one."""
    marks = [
        {
            "infons": {i.get("key"): i.text for i in a.findall("infon")},
            "locations": [
                {name: int(place.get(name, "?")) for name in ("offset", "length")}
                for place in a.findall("location")
            ],
        }
        for a in element.findall("annotation")
    ]
    return {
        "offset": int(element.findtext("offset") or 0),
        "text": element.findtext("text"),
        "annotations": marks,
        "sentences": [_part(sentence) for sentence in element.findall("sentence")],
    }


def is_bioc(item: Any) -> bool:
    """Whether an item is a document with passages."""
    return isinstance(item, Mapping) and isinstance(item.get("passages"), list)


def bioc_rows(item: Any) -> Iterator[Row]:
    """A row a passage, or a sentence where a passage holds sentences; an annotation in pieces reaches over them."""
    for passage in item["passages"]:
        for part in passage.get("sentences") or [passage]:
            if not part.get("text"):
                continue
            spans = []
            for mark in part.get("annotations", []):
                places = [
                    (p["offset"] - part["offset"], p["offset"] - part["offset"] + p["length"])
                    for p in mark["locations"]
                ]
                label = mark["infons"].get("type") or mark["infons"]["class"]
                spans.append(
                    {"start": min(s for s, _ in places), "end": max(e for _, e in places), "label": label}
                )
            yield {"text": part["text"], "spans": spans}
