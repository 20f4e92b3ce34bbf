"""Task selection: diversity, curriculum, hard tasks by recent loss, and the leakage guard."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_training import assert_same_run
from training_runs import LORA, changed, config_of

from fewshot_nlp import FewShotError
from fewshot_nlp.episode import Example, TaskDataset
from fewshot_nlp.training import MetaTrainConfig, meta_train
from fewshot_nlp.training.assembly import build_pipeline
from fewshot_nlp.training.callbacks import Callback, Record
from fewshot_nlp.training.config import SamplerSettings, Source
from fewshot_nlp.training.diversity import mixture_diversity
from fewshot_nlp.training.episodes import Streams, make_streams
from fewshot_nlp.training.leakage import NGrams, without_leaks
from fewshot_nlp.training.selection import Selection

HARD = Selection(hard_temperature=0.02, hard_decay=0.5, hard_floor=0.1)


class BrokenOff(Callback):
    """Leaves of a run what a kill between two checkpoints leaves."""

    def on_step(self, record: Record) -> None:
        if record["step"] == 16:
            raise RuntimeError("broken off")


def streams_of(folder: Path, encoder: Path, **changes: Any) -> Streams:
    config = config_of(folder, encoder, **changes)
    return make_streams(config, build_pipeline(config, torch.device("cpu")).task)


def texts(name: str, *rows: str) -> TaskDataset:
    examples = tuple(Example({"text": row}, "a") for row in rows)
    return TaskDataset(
        name=name, task="classification", examples=examples, label_counts=({"a": 1},) * len(rows)
    )


class TestDiversity:
    def test_like_sources_count_as_one(self) -> None:
        bank, law = texts("bank", "lost card", "new card"), texts("law", "the court ruled", "a judge sat")
        apart = mixture_diversity({"bank": bank, "law": law}, {"bank": 0.5, "law": 0.5}, 10)
        alike = mixture_diversity({"bank": bank, "bank2": bank}, {"bank": 0.5, "bank2": 0.5}, 10)
        rare = mixture_diversity({"bank": bank, "law": law}, {"bank": 0.99, "law": 0.01}, 10)
        assert (apart["effective_sources"], apart["vendi_score"], apart["mean_distance"]) == (2.0, 2.0, 1.0)
        assert (alike["effective_sources"], alike["vendi_score"], alike["mean_distance"]) == (2.0, 1.0, 0.0)
        assert 1 < rare["vendi_score"] < 1.1
        assert alike["nearest"] == ["bank", "bank2", 1.0]

    def test_is_in_the_log_once_and_told(
        self, tmp_path: Path, tiny_encoder_folder: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO", "fewshot_nlp")
        config = config_of(tmp_path, tiny_encoder_folder, outer__steps=2)
        meta_train(config)
        found = [r["diversity"] for r in meta_train(config).history if "diversity" in r]
        assert [r["sources"] for r in found] == [2]
        assert f"{found[0]['vendi_score']:g} by their texts" in caplog.text
        unmeasured = changed(
            config, run__output_dir=str(tmp_path / "b"), data__selection=Selection(diversity_rows=0)
        )
        assert not any("diversity" in r for r in meta_train(unmeasured).history)


class TestCurriculum:
    def test_n_way_grows(self, tmp_path: Path, tiny_encoder_folder: Path) -> None:
        changes = {
            "data__sampler": SamplerSettings(n_way=4, k_shot=1, n_query=3, options={"query": "rows"}),
            "outer__steps": 12,
            "data__sources": (Source(name="medical_ner"),),
        }
        grown = streams_of(
            tmp_path, tiny_encoder_folder, data__selection=Selection(curriculum="n_way"), **changes
        )
        plain = streams_of(tmp_path, tiny_encoder_folder, **changes)
        ways = [len(grown.train.episode(2 * step).label_names) for step in range(12)]
        assert ways == [2, 2, 2, 3, 3, 3, 4, 4, 4, 4, 4, 4]
        assert grown.train.episode(12) == plain.train.episode(12)

    def test_support_sets_shrink(self, tmp_path: Path, tiny_encoder_folder: Path) -> None:
        stream = streams_of(
            tmp_path, tiny_encoder_folder, data__selection=Selection(curriculum="k_shot"), outer__steps=40
        ).train
        shots = [{name.rpartition("/")[2] for name in stream.weights(step)} for step in (0, 19, 20)]
        assert shots == [{"2"}, {"2"}, {"1", "2"}]

    def test_sources_are_admitted_in_their_order(self, tmp_path: Path, tiny_encoder_folder: Path) -> None:
        stream = streams_of(
            tmp_path, tiny_encoder_folder, data__selection=Selection(curriculum="sources"), outer__steps=40
        ).train
        assert {stream.source(i) for i in range(40)} == {"medical_ner"}
        assert {stream.source(i) for i in range(40, 80)} == {"medical_ner", "legal_ner"}

    @pytest.mark.parametrize(
        ("curriculum", "changes", "told"),
        [
            ("n_way", {}, r"needs sampler\.n_way from 3 on, not 2"),
            ("k_shot", {"data__sampler": SamplerSettings(n_way=2, k_shot=1)}, "not 1 alone"),
            ("sources", {"data__sources": (Source(name="medical_ner"),)}, "not medical_ner alone"),
        ],
    )
    def test_nothing_to_grow_is_told(
        self, curriculum: str, changes: dict[str, Any], told: str, tmp_path: Path, tiny_encoder_folder: Path
    ) -> None:
        with pytest.raises(FewShotError, match=told):
            streams_of(
                tmp_path, tiny_encoder_folder, data__selection=Selection(curriculum=curriculum), **changes
            )  # type: ignore[arg-type]


class TestHardTasks:
    def test_draws_the_source_with_the_higher_loss(self, tmp_path: Path, tiny_encoder_folder: Path) -> None:
        for selection, least, most in ((HARD, 80, 99), (Selection(), 30, 70)):
            stream = streams_of(tmp_path, tiny_encoder_folder, data__selection=selection).train
            for step in range(10):
                losses = [1.0 if stream.source(2 * step + i) == "legal_ner" else 0.5 for i in range(2)]
                stream.learn(step, losses)
            drawn = Counter(stream.source(i) for i in range(20, 120))
            assert least < drawn["legal_ner"] < most, selection
        assert stream.losses == {}, "without hard-task sampling nothing is kept"

    def test_moving_mean_and_weights(self, tmp_path: Path, tiny_encoder_folder: Path) -> None:
        stream = streams_of(
            tmp_path,
            tiny_encoder_folder,
            data__selection=replace(HARD, hard_temperature=1.0),
            outer__meta_batch=4,
        ).train
        sources = [stream.source(i) for i in range(4)]
        stream.learn(0, [1.0, 2.0, 3.0, 4.0])
        expected: dict[str, float] = {}
        for source, loss in zip(sources, [1.0, 2.0, 3.0, 4.0], strict=True):
            expected[source] = (expected.get(source, loss) + loss) / 2
        assert stream.losses == expected
        assert sum(stream.weights(1).values()) == pytest.approx(1)
        stream.losses = {"medical_ner": 0.0}  # legal_ner, not met yet, counts as the hardest
        assert set(stream.weights(1).values()) == {0.25}
        stream.losses = {"medical_ner": 0.0, "legal_ner": 1.0}
        weights = stream.weights(1)
        assert weights["legal_ner/1"] == pytest.approx(0.1 * 0.25 + 0.9 * 0.5 * 0.7310586)

    def test_another_order_of_summing_does_not_change_the_draw(
        self, tmp_path: Path, tiny_encoder_folder: Path
    ) -> None:
        stream = streams_of(tmp_path, tiny_encoder_folder, data__selection=HARD).train
        drawn = []
        for error in (0.0, 1e-12):
            stream.losses = {"medical_ner": 0.5, "legal_ner": 0.51 + error}
            drawn.append([stream.episode(i).episode_id for i in range(100)])
        assert drawn[0] == drawn[1]
        assert len(set(drawn[0])) > 90

    def test_broken_off_and_resumed_is_bit_identical(self, tmp_path: Path, tiny_encoder_folder: Path) -> None:
        def config(name: str, selection: Selection) -> MetaTrainConfig:
            changes: dict[str, Any] = {"outer__steps": 30, "run__save_every": 7, "validation__every": 10}
            return config_of(tmp_path / name, tiny_encoder_folder, data__selection=selection, **changes)

        whole, broken, plain = config("whole", HARD), config("broken", HARD), config("plain", Selection())
        shares = [r["shares"] for r in meta_train(whole).history if "train_loss" in r]
        assert shares[0] == {"legal_ner": 0.5, "medical_ner": 0.5}
        assert max(abs(s["legal_ner"] - 0.5) for s in shares) > 0.1, "the moving means enter the weights"
        with pytest.raises(RuntimeError, match="broken off"):
            meta_train(broken, [BrokenOff()])
        meta_train(broken)
        assert_same_run(tmp_path / "whole", tmp_path / "broken")
        meta_train(plain)
        one, two = (tmp_path / n / "final" / "model.safetensors" for n in ("whole", "plain"))
        assert one.read_bytes() != two.read_bytes(), "hard-task sampling changes what is trained on"


class TestLeakageGuard:
    SHARED = "the bank shall not be liable for any loss arising from delay"

    def test_rows_that_share_n_grams_are_left_out(self, caplog: pytest.LogCaptureFixture) -> None:
        source = texts(
            "source", f"I read: {self.SHARED}!", "something else entirely, of eight words or more", "ok"
        )
        target = texts("target", f"(3) {self.SHARED.upper()}, as stated.", "OK.").examples
        kept = without_leaks({"source": source}, {"target": target}, n=8, max_share=0.7)
        assert [e.inputs["text"][:9] for e in kept["source"].examples] == ["something"]
        assert "source: 2 of 3 rows (66.7%) share 8-grams" in caplog.text
        assert without_leaks({"source": source}, {"target": target}, n=13, max_share=0.7)["source"].examples[
            0
        ]
        with pytest.raises(FewShotError, match=r"2 of 3 rows.*more than selection\.leakage_max_share 0\.5"):
            without_leaks({"source": source}, {"target": target}, n=8, max_share=0.5)

    def test_a_source_too_near_is_dropped_on_request(self, caplog: pytest.LogCaptureFixture) -> None:
        near, far = texts("near", self.SHARED), texts("far", "a wholly different sentence")
        measured = {"target": near.examples}
        kept = without_leaks({"near": near, "far": far}, measured, n=8, max_share=0.5, drop_sources=True)
        assert list(kept) == ["far"]
        assert "more than 50.0%, so the source is left out" in caplog.text
        with pytest.raises(FewShotError, match="left no source"):
            without_leaks({"near": near}, measured, n=8, max_share=0.5, drop_sources=True)

    def test_n_grams_are_those_of_the_words(self) -> None:
        grams, words = NGrams(3), ["a", "b", "c", "a", "b", "c", "d"]
        expected = Counter(tuple(words[i : i + 3]) for i in range(5))
        assert Counter(Counter(grams.of(words).tolist()).values()) == Counter(expected.values())
        assert grams.of(["a", "b"]).tolist() != grams.of(["b", "a"]).tolist()

    def test_guards_a_run(self, tmp_path: Path, tiny_encoder_folder: Path) -> None:
        def rows(path: Path, *tokens: str) -> Source:
            made = [{"tokens": [*t.split(), str(i)], "ner_tags": ["B-X"] + ["O"] * len(t.split())}
                    for t in tokens for i in range(6)]  # fmt: skip
            path.write_text("".join(json.dumps(row) + "\n" for row in made))
            return Source(name=str(path))

        changes: dict[str, Any] = {
            "data__sources": (rows(tmp_path / "source.jsonl", self.SHARED, "Ann lives in Rome"),),
            "validation__sources": (rows(tmp_path / "val.jsonl", "Bob works for Acme"),),
            "data__targets": (rows(tmp_path / "target.jsonl", f"in law , {self.SHARED}").name,),
            "data__sampler": SamplerSettings(n_way=1, k_shot=1, n_query=2, options={"query": "rows"}),
            "adapter": LORA,
        }
        seen = {}
        for n in (None, 8):
            selection = Selection(leakage_ngram=n, leakage_max_share=0.6)
            stream = streams_of(tmp_path, tiny_encoder_folder, data__selection=selection, **changes).train
            seen[n] = {e.inputs["tokens"][0] for i in range(20) for e in stream.episode(i).query}
        assert seen == {None: {"the", "Ann"}, 8: {"Ann"}}


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"curriculum": "steps"}, "must be one of: none, n_way"),
        ({"curriculum_share": 0.0}, "curriculum_share is 0.0"),
        ({"hard_temperature": 0.0}, "above 0"),
        ({"hard_decay": 1.0}, "from 0 to below 1"),
        ({"leakage_ngram": 0}, "at least 1"),
        ({"leakage_max_share": 1.5}, "from 0 to 1"),
    ],
)
def test_selection_is_checked(values: dict[str, Any], told: str) -> None:
    with pytest.raises(FewShotError, match=told):
        Selection(**values)
