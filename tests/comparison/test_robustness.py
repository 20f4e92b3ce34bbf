"""Changed texts and groups on toy rows whose answers are known."""

import random

import pytest
from toys import ROWS

from fewshot_nlp import FewShotError
from fewshot_nlp.comparison import robustness
from fewshot_nlp.comparison.perturbations import GROUPS, NAMES, NOISES, changed
from fewshot_nlp.episode import Example


def spoken(text, name):
    return changed(Example({"text": text}, "x"), {**NOISES, **GROUPS}[name], 0).inputs["text"]


class TestChanges:
    def test_by_hand(self):
        assert spoken("My Card, please!", "lower case") == "my card, please!"
        assert spoken("Are you going?", "informal") == "R u goin?"
        assert spoken("The colour of Labour", "British or American spelling") == "The color of Labor"

    def test_names_are_of_the_group_and_the_rest_stays(self):
        found = spoken("Yesterday James paid Priya.", "women, Arabic").split()
        assert found[0] == "Yesterday"
        assert found[2] == "paid"
        assert {found[1], found[3].strip(".")} <= set(NAMES["women, Arabic"])

    def test_letters_of_misspelt_words_stay_mostly(self):
        text = " ".join(["transfer"] * 200)
        words = spoken(text, "misspelt").split()
        assert 0.1 < sum(word != "transfer" for word in words) / 200 < 0.3
        assert all(abs(len(word) - 8) <= 1 and word[0] == "t" for word in words)

    def test_tags_stay_at_their_words(self):
        example = Example(
            {"tokens": ["Give", "James", "aspirin"], "text": "Give James aspirin"}, ["O", "B-PER", "B-DRUG"]
        )
        for change in (*NOISES.values(), *GROUPS.values()):
            found = changed(example, change, 1)
            assert found.target == example.target
            assert len(found.inputs["tokens"]) == 3
            assert "text" not in found.inputs

    def test_a_context_stays(self):
        example = Example(
            {"question": "what is it", "context": "it is a card"}, {"text": ["card"], "answer_start": [8]}
        )
        found = changed(example, NOISES["upper case"], 0)
        assert found.inputs == {"question": "WHAT IS IT", "context": "it is a card"}

    def test_no_word_is_lost(self):
        rng = random.Random(0)
        for change in NOISES.values():
            assert all(change(word, rng) for word in ("a", "it", "card", "going", "1,000", "...", "Öl"))


@pytest.fixture(scope="module")
def rows():
    """Every second row speaks of James; its group decides whether its label can be learned."""
    rng = random.Random(0)
    found = []
    for i, row in enumerate(ROWS["classification"](12, 0)):
        wrong = i % 2 == 1
        label = rng.choice(["law", "money", "medicine"]) if wrong else row["label"]
        found.append({"text": f"James {row['text']}", "label": label, "group": "odd" if wrong else "even"})
    return found


@pytest.fixture(scope="module")
def found(rows, tiny_encoder_folder):
    options = {"encoder": str(tiny_encoder_folder), "k_shot": 2, "repeats": 3, "by": "group"}
    return robustness(rows, task="classification", learner="ridge", **options)


def test_the_group_whose_labels_are_noise_is_served_worse(found):
    most, least, gap = found.gaps["groups"]
    assert (most, least) == ("even", "odd")
    assert gap.mean == pytest.approx(found.groups["even"].mean - found.groups["odd"].mean)
    assert "Largest gap of groups: even over odd" in found.headline


def test_an_uncased_encoder_does_not_mind_case(found):
    score, difference, share = found.noises["lower case"]
    assert (difference.mean, difference.half, share) == (0, 0, 1)
    assert score.mean == pytest.approx(found.base.mean)


def test_names_of_all_groups_are_measured(found):
    assert set(found.names) == set(NAMES)
    most, least, gap = found.gaps["names"]
    assert gap.mean == pytest.approx(found.names[most].mean - found.names[least].mean)
    means = [e.mean for e in found.names.values()]
    assert gap.mean == pytest.approx(max(means) - min(means))


def test_what_too_few_texts_have_is_told(found, tmp_path):
    assert any(note.startswith("British or American spelling: 0 of") for note in found.notes)
    assert found.headline.split(":")[0] in found.write_page(tmp_path / "page.html").read_text()


def test_a_support_set_without_a_group_is_warned_of(rows, tiny_encoder_folder):
    few = [row for row in rows if row["group"] == "even"][:9] + [
        row for row in rows if row["group"] == "odd"
    ][:1]
    options = {"encoder": str(tiny_encoder_folder), "k_shot": 1, "repeats": 2, "by": "group"}
    found = robustness(few, task="classification", learner="ridge", **options)
    assert "A support set has no row of the group: odd." in found.notes


def test_a_column_that_is_not_there(rows):
    with pytest.raises(FewShotError, match="Not every row has the column 'age'"):
        robustness(rows, task="classification", by="age")
