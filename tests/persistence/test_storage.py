"""Model folders: what is saved is loaded, damage is told in one line, and a failed save changes nothing."""

import json
import pickle
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_tiny_encoder
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from fewshot_nlp import FewShotClassifier, FewShotError, FewShotNER
from fewshot_nlp.backbone import Encoder, bundled
from fewshot_nlp.backbone import encoder as encoder_module
from fewshot_nlp.models import base
from fewshot_nlp.persistence import disk, storage
from fewshot_nlp.persistence.model_files import seal

ROWS = [
    {"text": "I lost my card", "label": "card"},
    {"text": "my card is not here", "label": "card"},
    {"text": "send money to her", "label": "transfer"},
    {"text": "the money was not paid", "label": "transfer"},
]
SENTENCES = [
    {"tokens": ["Give", "aspirin", "to", "him"], "ner_tags": ["O", "B-DRUG", "O", "O"]},
    {"tokens": ["take", "it", "this", "week"], "ner_tags": ["O", "O", "O", "B-TIME"]},
]
TEXTS = ["where is my card", "pay the bank", "give it"]
LORA = {"r": 2, "target_modules": ["query", "value"], "lora_alpha": 4}


@pytest.fixture
def encoder_folder(tiny_encoder_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny encoder, which a test may change or remove."""
    return Path(shutil.copytree(tiny_encoder_folder, tmp_path / "its encoder"))


@pytest.fixture
def saved(tiny_encoder_folder: Path, tmp_path: Path) -> Path:
    """A folder with an adapted model."""
    return make(tiny_encoder_folder).save_pretrained(tmp_path / "model")


def make(encoder: Path, **options: Any) -> FewShotClassifier:
    return FewShotClassifier.from_pretrained(encoder, learner="linear_probe", **options).adapt(ROWS)


def one_line(caught: pytest.ExceptionInfo[FewShotError]) -> str:
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) <= 300
    assert message.endswith(".")
    return message


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def shift_adapter(model: FewShotClassifier) -> None:
    """Gives an adapter values that are not its start, as meta-training does."""
    generator = torch.Generator().manual_seed(1)
    for parameter in model.pipeline.learner.encoder.adapter.values():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize(
    ("learner", "config", "adapter"),
    [
        ("linear_probe", {"C": 3.0}, None),
        ("prototypical", {}, None),
        ("nearest_neighbour", {"k": 2}, None),
        ("maml", {"inner_steps": 2, "inner_lr": 0.1}, LORA),
        ("fine_tune", {"steps": 2, "scope": "adapter"}, LORA),
        ("fine_tune", {"steps": 2, "scope": "all"}, None),
    ],
)
def test_loaded_model_predicts_the_same(
    learner: str, config: dict[str, Any], adapter: Any, encoder_folder: Path, tmp_path: Path
) -> None:
    given = None if adapter is None else LoraConfig(**adapter)
    model = FewShotClassifier.from_pretrained(
        encoder_folder, learner=learner, learner_config=config, adapter=given, top_layers=1 if given else None
    )
    shift_adapter(model)
    model.adapt(ROWS, {"card": "a bank card", "transfer": "money sent"})
    model.extra["note"] = {"any": ["JSON", 1, None, "half of a pair \ud800"]}
    model.save_pretrained(tmp_path / "model")
    shutil.rmtree(encoder_folder)

    loaded = FewShotClassifier.from_pretrained(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict_proba(TEXTS), model.predict_proba(TEXTS))
    assert loaded.labels == model.labels == ["card", "transfer"]
    assert loaded.descriptions == model.descriptions
    assert loaded.extra == model.extra
    assert loaded.extra["support_size"] == 4
    assert loaded.pipeline.learner.config == model.pipeline.learner.config
    assert loaded.pipeline.learner.encoder.fingerprint == model.pipeline.learner.encoder.fingerprint

    loaded.save_pretrained(tmp_path / "model")  # over itself
    again = FewShotClassifier.from_pretrained(tmp_path / "model")
    np.testing.assert_array_equal(again.predict_proba(TEXTS), model.predict_proba(TEXTS))


def test_loaded_tagger_predicts_the_same(tiny_encoder_folder: Path, tmp_path: Path) -> None:
    model = FewShotNER.from_pretrained(tiny_encoder_folder).adapt(SENTENCES)
    model.save_pretrained(tmp_path / "model")
    assert FewShotNER.from_pretrained(tmp_path / "model").predict(TEXTS) == model.predict(TEXTS)


def test_model_that_was_only_constructed(tiny_encoder_folder: Path, tmp_path: Path) -> None:
    model = FewShotClassifier.from_pretrained(
        tiny_encoder_folder, learner="maml", learner_config={"inner_steps": 3}, adapter=LoraConfig(**LORA)
    )
    shift_adapter(model)
    model.save_pretrained(tmp_path / "model")
    loaded = FewShotClassifier.from_pretrained(tmp_path / "model")
    assert not loaded.is_adapted
    assert loaded.labels == []
    with pytest.raises(FewShotError, match="not adapted yet"):
        loaded.predict(TEXTS)
    expected = model.adapt(ROWS).predict_proba(TEXTS)
    np.testing.assert_array_equal(loaded.adapt(ROWS).predict_proba(TEXTS), expected)


def test_encoder_from_a_folder_is_copied_and_the_bundled_one_is_named(
    encoder_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = make(encoder_folder).save_pretrained(tmp_path / "copied")
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {
        p.name for p in copied.glob("encoder/*")
    }
    monkeypatch.setattr(encoder_module, "bundled_folder", lambda: encoder_folder)
    named = make(encoder_folder).save_pretrained(tmp_path / "named")
    assert not (named / "encoder").exists()
    assert json.loads((named / "fewshot_nlp.json").read_text())["encoder"]["name"] == bundled.HUB_NAME


def test_an_encoder_that_is_shared_is_neither_copied_nor_trusted(
    encoder_folder: Path, tmp_path: Path
) -> None:
    model = make(encoder_folder)
    folder = model.save_pretrained(tmp_path / "model", base="reference")
    assert not (folder / "encoder").exists()
    assert str(encoder_folder) not in (folder / "fewshot_nlp.json").read_text(), "no path of the writer's"
    with pytest.raises(FewShotError, match=r"saved without its encoder; .*base=its folder"):
        FewShotClassifier.from_pretrained(folder)
    loaded = FewShotClassifier.from_pretrained(folder, base=encoder_folder)
    np.testing.assert_array_equal(loaded.predict_proba(TEXTS), model.predict_proba(TEXTS))
    other = make_tiny_encoder(tmp_path / "other", seed=5)
    with pytest.raises(
        FewShotError, match=r"adapted on an encoder with fingerprint .* its weights have changed"
    ):
        FewShotClassifier.from_pretrained(folder, base=other)
    with pytest.raises(FewShotError, match="is an encoder itself; leave base out"):
        FewShotClassifier.from_pretrained(encoder_folder, base=encoder_folder)
    model.pipeline.learner.encoder.mark_trained()
    with pytest.raises(FewShotError, match="no folder has them; leave base='reference' out"):
        model.save_pretrained(tmp_path / "trained", base="reference")
    with pytest.raises(FewShotError, match="must be one of: reference, copy"):
        model.save_pretrained(tmp_path / "odd", base="link")  # type: ignore[arg-type]


def test_a_named_encoder_is_copied_where_that_is_asked(
    encoder_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder_module, "bundled_folder", lambda: encoder_folder)
    model = make(encoder_folder).adapt(ROWS)
    copied = model.save_pretrained(tmp_path / "model", base="copy")
    monkeypatch.undo()
    loaded = FewShotClassifier.from_pretrained(copied)
    np.testing.assert_array_equal(loaded.predict_proba(TEXTS), model.predict_proba(TEXTS))


def test_base_weights_are_copied_without_the_adapter(encoder_folder: Path, tmp_path: Path) -> None:
    model = make(encoder_folder, adapter=LoraConfig(**LORA))
    shift_adapter(model)
    model.save_pretrained(tmp_path / "model")
    copied, base_weights = (
        load_file(folder / "model.safetensors") for folder in (tmp_path / "model" / "encoder", encoder_folder)
    )
    assert set(copied) == set(base_weights)
    assert all(torch.equal(copied[name], base_weights[name]) for name in copied)


@pytest.mark.parametrize("named", [False, True])
def test_dtype_is_kept(
    named: bool, tiny_encoder_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if named:  # the encoder's own files say float32
        monkeypatch.setattr(encoder_module, "bundled_folder", lambda: tiny_encoder_folder)
        monkeypatch.setattr(bundled, "bundled_folder", lambda: tiny_encoder_folder)
    model = make(tiny_encoder_folder, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "model")
    assert (tmp_path / "model" / "encoder").exists() is not named
    loaded = FewShotClassifier.from_pretrained(tmp_path / "model")
    assert loaded.pipeline.learner.encoder.model.dtype == torch.bfloat16
    np.testing.assert_array_equal(loaded.predict_proba(TEXTS), model.predict_proba(TEXTS))
    other = FewShotClassifier.from_pretrained(tmp_path / "model", dtype=torch.float32)
    assert other.pipeline.learner.encoder.model.dtype == torch.float32
    np.testing.assert_allclose(other.predict_proba(TEXTS), model.predict_proba(TEXTS), atol=0.05)


def test_settings_that_a_model_has_already_are_refused(saved: Path) -> None:
    for option, message in (
        ({"layers": [-1]}, "adapted to 2 labels by .* other layers"),
        ({"learner": "prototypical"}, "adapted to 2 labels by .* another learner"),
        ({"learner_config": {"label_names": 2.0}}, "adapted to 2 labels by .* other settings"),
        ({"pooling": "first"}, "own settings of the encoder; leave pooling out"),
        ({"max_length": 8}, "own settings of the encoder; leave max_length out"),
        ({"top_layers": 1}, "whose adapter cannot be chosen; leave adapter and top_layers out"),
    ):
        with pytest.raises(FewShotError, match=message):
            FewShotClassifier.from_pretrained(saved, **option)
    with pytest.raises(FewShotError, match="is a model for classification, not for ner"):
        FewShotNER.from_pretrained(saved)


# Damage


def cut(name: str, share: float, sealed: bool = False) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(len(data) * share)])
        if sealed:
            seal(folder)

    return damage


def change_json(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "fewshot_nlp.json"
        config = json.loads(path.read_text())
        change(config)
        path.write_text(json.dumps(config))
        seal(folder)

    return damage


def change_tensors(
    change: Callable[[dict[str, torch.Tensor]], Any], part: str = "."
) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / part / "model.safetensors"
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path, metadata={"format": "pt"})
        seal(folder)

    return damage


class Bomb:
    """Unpickling it makes a file."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("exploded"),)


def pickle_instead(part: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / part / "model.safetensors").unlink()
        (folder / part / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
        if (folder / "fewshot_nlp.json").exists():
            seal(folder)

    return damage


def first_state(tensors: dict[str, torch.Tensor]) -> str:
    return next(name for name in sorted(tensors) if name.startswith("state."))


def shrink_state(tensors: dict[str, torch.Tensor]) -> None:
    name = first_state(tensors)
    tensors[name] = tensors[name].flatten()[:1].clone()


def shift_weights(tensors: dict[str, torch.Tensor]) -> None:
    tensors["embeddings.word_embeddings.weight"][7, 3] += 0.5


def change_encoder(folder: Path, **values: Any) -> None:
    path = folder / "encoder" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    seal(folder)


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "tensors cut short": (
        cut("model.safetensors", 0.7),
        r"model\.safetensors is damaged .*save the model again",
    ),
    "tensors empty": (cut("model.safetensors", 0), r"model\.safetensors is damaged .*save the model again"),
    "json cut short": (cut("fewshot_nlp.json", 0.5), r"fewshot_nlp\.json is damaged .*save the model again"),
    "json empty": (cut("fewshot_nlp.json", 0), r"fewshot_nlp\.json is damaged .*save the model again"),
    "json is a list": (lambda f: (f / "fewshot_nlp.json").write_text("[]") and None, "damaged"),
    "json is binary": (lambda f: (f / "fewshot_nlp.json").write_bytes(b"\xff\xfe\x00") and None, "damaged"),
    "later format": (
        change_json(lambda c: c.update(format=2)),
        "has format 2, this version reads format 1; load it with the version that wrote it",
    ),
    "unknown learner": (
        change_json(lambda c: c.update(learner="linear_prob")),
        "Did you mean 'linear_probe'",
    ),
    "unknown setting": (change_json(lambda c: c["learner_config"].update(D=1)), "has no setting 'D'"),
    "unknown option": (
        change_json(lambda c: c["task_options"].update(D=1)),
        "task_config has no setting 'D'",
    ),
    "labels a text": (change_json(lambda c: c.update(labels="card")), "damaged: labels is a str"),
    "layers a text": (change_json(lambda c: c["encoder"].update(layers="all")), "damaged: layers is a str"),
    "tensor missing": (
        change_tensors(lambda t: t.pop(first_state(t))),
        r"the tensor state\.\S+ is missing, but \[.*save the model again",
    ),
    "tensor too many": (
        change_tensors(lambda t: t.update(zzz=torch.ones(1))),
        r"the tensor zzz is \[1\], but none was expected; save the model again",
    ),
    "tensor of another shape": (change_tensors(shrink_state), r"the tensor state\.\S+ is \[1\], but \["),
    "no tensors": (lambda f: (f / "model.safetensors").unlink(), r"has no model\.safetensors\. Save"),
    "pickle": (
        pickle_instead("."),
        r"has no model\.safetensors\. Pickles such as pytorch_model\.bin are refused",
    ),
    "tensors cut short and sealed": (
        cut("model.safetensors", 0.7, sealed=True),
        r"model\.safetensors is damaged .*save the model again",
    ),
    "encoder missing": (lambda f: shutil.rmtree(f / "encoder"), r"has no encoder/config\.json"),
    "encoder missing and sealed": (
        lambda f: shutil.rmtree(f / "encoder") or seal(f),
        r"was saved without its encoder; say where that is: from_pretrained\(..., base=its folder\)",
    ),
    "encoder cut short": (
        cut("encoder/model.safetensors", 0.7),
        "encoder/model.safetensors is damaged .*again",
    ),
    "encoder cut short and sealed": (
        cut("encoder/model.safetensors", 0.7, sealed=True),
        "weights of .*encoder are damaged .*again",
    ),
    "encoder's config cut short": (cut("encoder/config.json", 0.5), "encoder/config.json is damaged .*again"),
    "encoder's config cut short and sealed": (
        cut("encoder/config.json", 0.5, sealed=True),
        "encoder cannot be loaded",
    ),
    "a value changed": (
        lambda f: (
            (f / "fewshot_nlp.json").write_text(
                (f / "fewshot_nlp.json").read_text().replace('"support_size": 4', '"support_size": 5')
            )
            and None
        ),
        "its values are not those that were saved",
    ),
    "a file added": (
        lambda f: (f / "encoder" / "vocab.txt").write_text("a") and None,
        "has a file encoder/vocab.txt that is not the model's",
    ),
    "an adapter of another model": (
        lambda f: (f / "encoder" / "adapter_config.json").write_text("{}") and seal(f),
        "has a file encoder/adapter_config.json that is not the model's",
    ),
    "unknown key": (change_json(lambda c: c.update(colour=1)), "unknown key, 'colour'"),
    "a bool for a number": (
        change_json(lambda c: c["encoder"].update(max_length=True)),
        "max_length is a bool",
    ),
    "label twice": (change_json(lambda c: c.update(labels=["card", "card"])), "a label is there twice"),
    "more labels than the head has": (
        change_json(lambda c: c["labels"].append("zebra")),
        r"state gives scores \[1, 2\].* 1 slots and 3 classes",
    ),
    "not a number": (
        change_tensors(lambda t: t[first_state(t)].fill_(torch.nan)),
        r"state\.\S+ has values that are no numbers",
    ),
    "a path of the reader's": (
        change_json(lambda c: c["encoder"].update(name="/etc/model")),
        "names the encoder '/etc/model', a place on this machine",
    ),
    "a relative path of the reader's": (
        change_json(lambda c: c["encoder"].update(name="its encoder")),
        "names the encoder 'its encoder', a place on this machine",
    ),
    "no dtype": (change_json(lambda c: c["encoder"].update(dtype="load")), "'load' is no dtype of weights"),
    "a deep JSON": (
        lambda f: (f / "fewshot_nlp.json").write_text("[" * 70 + "]" * 70) and None,
        "nested over 64 levels",
    ),
    "a deeper JSON": (
        lambda f: (f / "fewshot_nlp.json").write_text("[" * 10**5) and None,
        r"fewshot_nlp\.json is damaged \(",
    ),
    "an attention kernel from the Hub": (
        lambda f: change_encoder(f, attn_implementation="kernels-community/flash-attn"),
        "attn_implementation .*kernels-community/flash-attn.* fetched and run",
    ),
    "a billion labels": (lambda f: change_encoder(f, num_labels=10**9), "says num_labels 1e[+]09"),
    "a billion positions": (
        lambda f: change_encoder(f, max_position_embeddings=10**12),
        "asks for tensors of|cannot be loaded|other sizes",
    ),
    "two thousand layers": (lambda f: change_encoder(f, num_hidden_layers=2000), "holds fewer tensors"),
    "encoder is a pickle": (
        pickle_instead("encoder"),
        r"as a pickle only \(pytorch_model\.bin\).*refused; save",
    ),
    "encoder of other weights": (
        change_tensors(shift_weights, "encoder"),
        r"adapted on an encoder with fingerprint \w{12}\.\.\., but .* has \w{12}.*Adapt again",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_told_in_one_line(
    name: str, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    FewShotClassifier.from_pretrained(saved)
    damage, told = DAMAGES[name]
    damage(saved)
    with pytest.raises(FewShotError, match=told) as caught:
        FewShotClassifier.from_pretrained(saved)
    one_line(caught)
    assert not Path("exploded").exists()


def test_bomb_explodes_when_it_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the tests above that nothing is unpickled could not fail."""
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Bomb()))  # noqa: S301 - our own
    assert Path("exploded").exists()


def test_every_missing_key_is_named(saved: Path) -> None:
    path = saved / "fewshot_nlp.json"
    whole = json.loads(path.read_text())
    keys = [(key,) for key in whole if key != "version"] + [("encoder", key) for key in whole["encoder"]]
    assert len(keys) > 15
    for key in keys:
        config = json.loads(json.dumps(whole))
        inner = config
        for step in key[:-1]:
            inner = inner[step]
        del inner[key[-1]]
        path.write_text(json.dumps(config))
        if len(key) == 2:
            seal(saved)
        with pytest.raises(FewShotError, match="is damaged") as caught:
            storage.load(saved)
        assert key[-1] == "format" or f"{key[-1]} is missing" in one_line(caught)


def test_adapter_that_peft_does_not_know(tiny_encoder_folder: Path, tmp_path: Path) -> None:
    folder = make(tiny_encoder_folder, adapter=LoraConfig(**LORA)).save_pretrained(tmp_path / "model")
    change_json(lambda c: c["encoder"]["adapter"].update(peft_type="FROM_THE_FUTURE"))(folder)
    with pytest.raises(FewShotError, match=r"adapter .* not know .*FROM_THE_FUTURE.*upgrade peft") as caught:
        storage.load(folder)
    one_line(caught)


def test_adapter_of_another_size(tiny_encoder_folder: Path, tmp_path: Path) -> None:
    folder = make(tiny_encoder_folder, adapter=LoraConfig(**LORA)).save_pretrained(tmp_path / "model")
    change_json(lambda c: c["encoder"]["adapter"].update(r=3))(folder)
    with pytest.raises(FewShotError, match=r"is \[2, 32\], but \[3, 32\] was expected") as caught:
        storage.load(folder)
    one_line(caught)
    change_json(lambda c: c["encoder"]["adapter"].update(r=10**9))(folder)
    with pytest.raises(
        FewShotError, match=r"asks for tensors of 32,\d+,\d+,\d+ numbers, but its files"
    ) as caught:
        storage.load(folder)
    one_line(caught)


def test_a_module_that_an_adapter_names_is_not_imported(tiny_encoder_folder: Path, tmp_path: Path) -> None:
    folder = make(tiny_encoder_folder, adapter=LoraConfig(**LORA)).save_pretrained(tmp_path / "model")
    change_json(lambda c: c["encoder"]["adapter"].update(megatron_config={}, megatron_core="antigravity"))(
        folder
    )
    change_json(lambda c: c["encoder"]["adapter"].update(megatron_config={"a": 1}))(folder)
    with pytest.raises(FewShotError, match=r"megatron_config=.* imports a module; leave it out") as caught:
        storage.load(folder)
    one_line(caught)


def test_encoder_folders(encoder_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pickle_instead(".")(encoder_folder)
    with pytest.raises(
        FewShotError, match=r"as a pickle only \(pytorch_model\.bin\).*save the model"
    ) as caught:
        FewShotClassifier.from_pretrained(encoder_folder)
    one_line(caught)
    assert not Path("exploded").exists()
    (encoder_folder / "config.json").unlink()
    with pytest.raises(FewShotError, match=r"is no model: it has no config\.json") as caught:
        FewShotClassifier.from_pretrained(encoder_folder)
    one_line(caught)
    with pytest.raises(
        FewShotError, match=r"is no model folder of this package: it has no fewshot_nlp\.json"
    ) as caught:
        storage.load(encoder_folder)
    one_line(caught)


@pytest.mark.parametrize("weights", [b"other weights", None])
def test_bundled_weights_that_are_not_the_published_ones(
    weights: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    if weights is not None:
        (tmp_path / "model" / "model.safetensors").write_bytes(weights)
    spec = ModuleSpec(bundled.PACKAGE, None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(bundled, "find_spec", lambda name: spec)
    told = "has no model.safetensors; reinstall" if weights is None else "sha256 .* was expected.*reinstall"
    for call in (FewShotClassifier.from_pretrained, Encoder.from_pretrained):
        with pytest.raises(FewShotError, match=told) as caught:
            call()
        assert "pip install" in one_line(caught)


# Saves that fail


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Lets the operating system refuse every byte of a file beyond a size, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("limit", "reached"),
    [(50, "fewshot_nlp.json"), (3_000, "encoder/tokenizer.json"), (20_000, "encoder/model.safetensors")],
)
def test_full_disk_leaves_the_earlier_model(
    limit: int, reached: str, saved: Path, tiny_encoder_folder: Path
) -> None:
    before = contents(saved)
    assert len(before[reached]) > limit
    other = make(tiny_encoder_folder)
    other.extra["later"] = True
    with (
        files_of_at_most(limit),
        pytest.raises(FewShotError, match=r"cannot be written: File too large\. What was there is") as caught,
    ):
        other.save_pretrained(saved)
    one_line(caught)
    assert contents(saved) == before
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]
    other.save_pretrained(saved)
    assert FewShotClassifier.from_pretrained(saved).extra["later"]


def test_full_disk_in_the_tensors(tiny_encoder_folder: Path, tmp_path: Path) -> None:
    encoder = Encoder.from_pretrained(tiny_encoder_folder)
    pipeline = storage.new_pipeline("classification", {}, encoder, "nearest_neighbour", None)
    rows = [{"text": f"card {i}", "label": str(i % 2)} for i in range(100)]
    model = pipeline.adapt(pipeline.task.examples(rows), ["0", "1"])
    with (
        files_of_at_most(8_000),
        pytest.raises(FewShotError, match="cannot be written: File too large") as caught,
    ):
        storage.save(tmp_path / "model", pipeline, model)
    one_line(caught)
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_written(
    tiny_encoder_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make(tiny_encoder_folder)
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file" / "model", tmp_path / "file" / "deeper" / "model"):
        with pytest.raises(FewShotError, match=r"cannot be written: .*name another folder\.") as caught:
            model.save_pretrained(folder)
        one_line(caught)

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(FewShotError, match="cannot be written: Permission denied") as caught:
        model.save_pretrained(tmp_path / "model")
    one_line(caught)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_foreign_folder_is_not_replaced(tiny_encoder_folder: Path, tmp_path: Path) -> None:
    model = make(tiny_encoder_folder)
    foreign = tmp_path / "thesis"
    foreign.mkdir()
    (foreign / "chapter.txt").write_text("mine")
    for folder in (foreign, foreign / "chapter.txt"):
        with pytest.raises(FewShotError, match="exists and is no model folder; name a new one") as caught:
            model.save_pretrained(folder)
        one_line(caught)
    assert contents(foreign) == {"chapter.txt": b"mine"}
    empty = tmp_path / "empty"
    empty.mkdir()
    model.save_pretrained(empty)
    assert storage.is_model_folder(empty)


def test_saving_again_keeps_what_is_not_the_models(saved: Path, tiny_encoder_folder: Path) -> None:
    (saved / "notes.txt").write_text("mine")
    (saved / ".git").mkdir()
    (saved / ".git" / "HEAD").write_text("ref")
    (saved / "encoder" / "stale.json").write_text("{}")
    neighbour = saved.with_name(saved.name + ".old")
    neighbour.mkdir()
    make(tiny_encoder_folder).save_pretrained(saved)
    assert (saved / "notes.txt").read_text() == "mine"
    assert (saved / ".git" / "HEAD").read_text() == "ref"
    assert not (saved / "encoder" / "stale.json").exists()
    assert sorted(p.name for p in saved.parent.iterdir()) == [saved.name, neighbour.name]


def test_saving_through_a_link(saved: Path, tiny_encoder_folder: Path) -> None:
    link = saved.with_name("link")
    link.symlink_to(saved, target_is_directory=True)
    other = make(tiny_encoder_folder)
    other.extra["later"] = True
    other.save_pretrained(link)
    assert link.is_symlink()
    assert FewShotClassifier.from_pretrained(saved).extra["later"]


@pytest.mark.parametrize(
    ("moment", "exchanges"),
    [
        ("while writing", True),
        ("while writing", False),
        ("before replacing", False),
        ("while replacing", False),
    ],
)
def test_interrupted_save_leaves_the_earlier_model(
    moment: str, exchanges: bool, saved: Path, tiny_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(saved)
    model = make(tiny_encoder_folder)
    renames = {"before replacing": 1, "while replacing": 2}.get(moment)
    if not exchanges:
        monkeypatch.setattr(disk, "_exchange", lambda *_: False)
    rename, calls = Path.rename, []

    def interrupted_rename(path: Path, target: Path) -> Path:
        calls.append(path)
        if len(calls) == renames:
            raise KeyboardInterrupt
        return rename(path, target)

    def interrupted_write(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if renames is None:
            patch.setattr(storage, "write_tensors", interrupted_write)
        else:
            patch.setattr(Path, "rename", interrupted_rename)
        with pytest.raises(KeyboardInterrupt):
            model.save_pretrained(saved)
    assert renames is None or len(calls) >= renames
    assert contents(saved) == before
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_card_is_part_of_the_save(
    saved: Path, tiny_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (saved / "README.md").read_text().startswith("---\n")
    before = contents(saved)

    def no_card(*_: Any) -> str:
        raise FewShotError("No card.")

    monkeypatch.setattr(base, "model_card", no_card)
    with pytest.raises(FewShotError, match="No card"):
        make(tiny_encoder_folder).save_pretrained(saved)
    assert contents(saved) == before


def test_extra_that_is_no_json(tiny_encoder_folder: Path, tmp_path: Path) -> None:
    model = make(tiny_encoder_folder)
    model.extra["score"] = np.float32(0.5)
    with pytest.raises(FewShotError, match="float32 is not JSON serializable") as caught:
        model.save_pretrained(tmp_path / "model")
    one_line(caught)
    assert list(tmp_path.iterdir()) == []
