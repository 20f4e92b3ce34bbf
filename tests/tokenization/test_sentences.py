"""Sentences of a text: ends that a reader sees, and those that only look like one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewshot_nlp.tokenization.segmentation import sentences, split_words


def cut(text: str) -> list[str]:
    return [text[a:b].strip() for a, b in sentences(text, split_words(text))]


@pytest.mark.parametrize(
    "expected",
    [
        ["Give aspirin.", "Then rest!", "Is it well?", "Yes."],
        ["They died in 1990 .", "She went ."],
        ["He stayed (see below).", '"Why?"', "Nobody knows…", "The end"],
        ["Dr. Maier came on 3. Mai with J. R. Smith et al. and left.", "He was ill."],
        ["z. B. Aspirin hilft, vgl. Abb. 3 und Art. 512.", "Das reicht."],
        ["A cost of 3.5 million.", "Some 20 patients, approx. 4 of Fig. 2."],
        ["Order No . 74 of Khem Chand Vs . State under Sec . 5 of Art . 14 stands .", "So be it ."],
        ["a sum of 250 , 000 . 00 in Section 5 . 1 , at 12 : 00 p . m . Eastern time"],
        ["1. Aspirin and e.g. Ibuprofen"],
        ["no capital follows. so it goes on"],
    ],
)
def test_ends_of_sentences(expected: list[str]) -> None:
    assert cut(" ".join(expected)) == expected


def test_scripts_without_capitals_and_empty_lines() -> None:
    assert cut("今日は病院に行く。薬を飲む！終わり") == ["今日は病院に行く。", "薬を飲む！", "終わり"]
    assert cut("हाँ ठीक है. फिर आना") == ["हाँ ठीक है.", "फिर आना"]
    assert cut("A title\n\nIts text\nin two lines\n \n\n") == ["A title", "Its text\nin two lines"]


def test_a_given_word_is_never_cut() -> None:
    text = "New. York is big. Yes."
    assert sentences(text, [(0, 9), (10, 12), (13, 16), (16, 17), (18, 22)]) == [(0, 17), (17, 22)]


@given(st.text(alphabet='aA1 .!。\n"(İ', max_size=60))
def test_they_are_the_whole_text(text: str) -> None:
    words = split_words(text)
    found = sentences(text, words)
    assert "".join(text[a:b] for a, b in found) == text
    borders = {b for _, b in found[:-1]}
    assert all(not start < border < end for border in borders for start, end in words)
