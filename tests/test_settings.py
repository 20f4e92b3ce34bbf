"""Settings: one declaration checks, reads, and describes; what it refuses is told at once."""

import dataclasses
import json
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from pydantic import Field, TypeAdapter, ValidationError, model_validator

from fewshot_nlp.arguments import load_yaml, overview, read_arguments
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.learners import LEARNERS
from fewshot_nlp.sampling import SAMPLERS
from fewshot_nlp.search.study import SearchConfig
from fewshot_nlp.settings import Settings, Several, Share, describe, hints_of
from fewshot_nlp.tasks import TASKS
from fewshot_nlp.training import MetaTrainConfig


class Inner(Settings):
    """Settings within settings.

    Args:
        size: how large.
        name: what it is called.
    """

    size: Annotated[int, Field(ge=1, le=9)] = 3
    name: str = "a"


class Outer(Settings):
    """Settings of all kinds.

    Args:
        share: how much,
            of all.
        sizes: some numbers.
        form: one of two.
        on: whether.
        inner: nested.
        many: several of them.
        rate: a number, or "own".
        folder: a place.

    Raises:
        FewShotError: something else.
    """

    share: Share = 0.5
    sizes: Several[int] = (1, 2)
    form: Literal["round", "square"] = "round"
    on: bool = False
    inner: Inner = Inner()
    many: Several[Inner] = ()
    rate: Annotated[float, Field(gt=0)] | Literal["own"] | None = None
    folder: str | None = None

    @model_validator(mode="after")
    def _fits(self) -> "Outer":
        if self.on and self.form == "square":
            raise FewShotError("on is true, but a square cannot be; take form='round'.")
        return self


def refused(values: dict[str, Any], kind: type[Settings] = Outer, path: str = "") -> list[str]:
    with pytest.raises(FewShotError) as caught:
        kind.from_dict(values, path)
    assert caught.value.__cause__ is None
    assert "pydantic" not in str(caught.value)
    return str(caught.value).split("\n")


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"share": "0.5"}, "share is '0.5', but must be a number from 0 to 1."),
        ({"share": True}, "share is True, but must be a number from 0 to 1."),
        ({"share": float("nan")}, "share is nan, but must be a number from 0 to 1."),
        ({"share": 1.5}, "share is 1.5, but must be a number from 0 to 1."),
        ({"sizes": [1, 2.0]}, "sizes.1 is 2.0, but must be a whole number."),
        ({"sizes": [1, True]}, "sizes.1 is True, but must be a whole number."),
        ({"sizes": 3}, "sizes is 3, but must be a list, each item a whole number."),
        ({"form": "oval"}, "form is 'oval', but must be one of: round, square."),
        ({"on": "false"}, "on is 'false', but must be true or false."),
        ({"on": 1}, "on is 1, but must be true or false."),
        ({"rate": 0}, "rate is 0, but must be a number above 0, one of: own, or None."),
        ({"folder": 3}, "folder is 3, but must be a text, or None."),
        ({"inner": {"size": 2.5}}, "inner.size is 2.5, but must be a whole number from 1 to 9."),
        ({"inner": {"sise": 2}}, "inner has no setting 'sise'. Did you mean 'size'? It has: size, name."),
        ({"many": [{}, {"size": 0}]}, "many.1.size is 0, but must be a whole number from 1 to 9."),
        ({"inner": 7}, "inner is 7, but must be settings: size, name."),
        ({"on": True, "form": "square"}, "on is true, but a square cannot be; take form='round'."),
    ],
)
def test_a_wrong_value_is_refused_in_one_line_with_path_value_and_bounds(values, told):
    assert refused(values) == [told]
    below = told if told.startswith(("on is true", "inner has no")) else f"at.{told}"
    assert refused(values, path="at")[0].removeprefix("at: ").removeprefix("at.") == below.removeprefix("at.")


def test_all_that_is_wrong_is_told_at_once():
    lines = refused({"share": 2, "forn": "round", "inner": {"size": 0, "nam": "b"}, "many": [{"name": 1}]})
    assert sorted(line.split(" ")[0] for line in lines) == [
        "Outer",
        "inner",
        "inner.size",
        "many.0.name",
        "share",
    ]


def test_what_yaml_gives_is_taken():
    made = Outer.from_dict(
        yaml.safe_load("{share: 1, sizes: [3], many: [{size: 2}], inner: {name: b}, rate: own}")
    )
    assert made == Outer(share=1.0, sizes=(3,), many=(Inner(size=2),), inner=Inner(name="b"), rate="own")
    assert isinstance(made.share, float)
    assert Outer.from_dict(json.loads(json.dumps(made.to_dict()))) == made


def test_settings_are_frozen_and_a_changed_copy_is_checked():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Outer().share = 0.1  # type: ignore[misc]
    with pytest.raises(FewShotError, match="share is 3, but must"):
        dataclasses.replace(Outer(), share=3)


def test_a_command_line_overrides_a_file_by_path(tmp_path: Path):
    path = tmp_path / "a.yaml"
    path.write_text("inner: {size: 2, name: b}\nshare: 1e-1\n")
    made = read_arguments(
        Outer, ["--config", str(path), "--inner.size=4", "--sizes", "[7, 8]", "--folder=2024"]
    )
    assert made == Outer(share=0.1, sizes=(7, 8), inner=Inner(size=4, name="b"), folder="2024")
    assert read_arguments(Outer, ["--folder=null"]).folder is None


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--inner.sice=4"], "inner has no setting 'sice'. Did you mean 'size'?"),
        (["inner"], "'inner' is no setting; write --name=value"),
        (["--share"], "'--share' is no setting; write --name=value"),
        (["--config=nowhere.yaml"], "There is no file 'nowhere.yaml'"),
        (["--sizes=[1"], "--sizes is not YAML"),
        (["--share=1", "--share.low=2"], "'share.low': share has no settings of its own."),
    ],
)
def test_a_bad_command_line_is_refused_in_one_line(arguments, told):
    with pytest.raises(FewShotError) as caught:
        read_arguments(Outer, arguments)
    assert str(caught.value).startswith(told)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["1e-3", "5E-4", "1.5", ".5", "-2e3", "1.", "7", "-3", "true", "no", "on", "None", "x"]
)
def test_yaml_reads_numbers_as_json_does_and_words_as_words(text):
    try:
        expected = json.loads(text)
    except json.JSONDecodeError:
        expected = {".5": 0.5, "1.": 1.0}.get(text, text)
    found = load_yaml(text, "here")
    assert found == expected
    assert type(found) is type(expected)


def test_description():
    found = {setting.name: setting for setting in describe(Outer)}
    assert list(found)[:6] == ["share", "sizes", "form", "on", "inner.size", "inner.name"]
    assert found["share"].about == "how much, of all."
    assert found["inner.size"].values == "a whole number from 1 to 9"
    assert found["inner.size"].default == 3
    assert "--inner.size  a whole number from 1 to 9; default 3\n      how large.\n" in overview(Outer)


def every_class() -> list[type[Settings]]:
    LEARNERS.names(), TASKS.names(), SAMPLERS.names()
    found, more = [], [Settings]
    while more:
        kinds = [kind for parent in more for kind in parent.__subclasses__()]
        found += [kind for kind in kinds if kind.__module__.startswith("fewshot_nlp.")]
        more = kinds
    return sorted(set(found), key=lambda kind: kind.__name__)


def allowed(hint: Any) -> set[str]:
    """Which of some values a setting may have."""
    found = set()
    for value in (None, True, "x", -1, 0, 1, 2, 10**4, 10**8, 0.0, 0.5, 1e-7, 99.5, 1e7, ["x"], {"x": 1.0}):
        with suppress(ValidationError):
            TypeAdapter(hint).validate_python(value, strict=True)
            found.add(repr(value))
    return found


@pytest.mark.parametrize("kind", every_class(), ids=lambda kind: kind.__name__)
def test_every_setting_is_explained_and_keeps_the_bounds_of_its_parent(kind):
    assert [setting.name for setting in describe(kind) if not setting.about] == []
    for parent in kind.__mro__[1:]:
        if issubclass(parent, Settings):
            hints = hints_of(kind)
            wider = {
                name for name, hint in hints_of(parent).items() if not allowed(hints[name]) <= allowed(hint)
            }
            assert not wider, f"{kind.__name__} declares {wider} anew, and wider than {parent.__name__}"


@pytest.mark.parametrize("kind", [LEARNERS.get(name).config_class for name in LEARNERS.names()])
def test_settings_of_learners_survive_json(kind):
    assert kind.from_dict(json.loads(json.dumps(kind().to_dict()))) == kind()


def test_runs_and_searches_are_settings():
    assert {MetaTrainConfig, SearchConfig} <= set(every_class())
