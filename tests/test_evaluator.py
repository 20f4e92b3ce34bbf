"""The evaluator: intervals, pooling, manifests, journals that are continued."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from families import SIX, SIZE, of_family
from peft import LoraConfig
from scipy import stats
from seqeval.metrics import f1_score
from seqeval.scheme import IOB2
from transformers import RobertaConfig

from fewshot_nlp import FewShotError, FewShotNER, evaluate_episodes
from fewshot_nlp.backbone import Encoder
from fewshot_nlp.episode import Episode, Example, TaskDataset, read_episodes, write_episodes
from fewshot_nlp.evaluator import interval, mean_and_interval
from fewshot_nlp.persistence.storage import new_pipeline
from fewshot_nlp.sampling import NWayKShot, episodes


def example(text, label):
    return Example({"text": text}, label)


EPISODES = [
    Episode(
        task="classification",
        support=(example("my card", "card"), example("the court", "law")),
        query=(example(f"card {i} paid", "card"), example(f"a judge and law {i}", "law")),
        label_names=("card", "law"),
        task_id="toy",
        episode_id=f"toy/{i}",
    )
    for i in range(6)
]


@pytest.fixture
def pipeline(tiny_encoder_folder):
    return new_pipeline(
        "classification", {}, Encoder.from_pretrained(tiny_encoder_folder), "prototypical", None
    )


def test_interval_is_students_t():
    values = [0.2, 0.5, 0.4, 0.9]
    mean, half = mean_and_interval(values)
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (mean - half, mean + half) == (pytest.approx(low), pytest.approx(high))
    assert mean_and_interval([0.3]) == (0.3, None)


POOLS = json.loads(Path(__file__).parents[1].joinpath("evaluation/results/interval_pools.json").read_text())


def held(drawn, mean, **options):
    low, high = interval(drawn, **options)
    return ((low <= mean) & (mean <= high)).mean()


@pytest.mark.parametrize("n", [5, 12, 20, 100])
@pytest.mark.parametrize("name", POOLS)
def test_the_interval_of_shares_covers_the_mean(name, n):
    """Scores of real episodes: accuracies near 1, entity F1, chrF; drawn with replacement, the truth is their mean."""
    pool = np.array(POOLS[name])
    drawn = np.random.default_rng(n).choice(pool, (8000, n))
    assert 0.93 <= held(drawn, pool.mean(), shares=True) <= 0.975


@pytest.mark.parametrize("mean", [0.75, 0.9, 0.95])
def test_it_covers_skewed_shares_of_another_kind(mean):
    """Right decisions of 20, with a chance by a beta distribution: five episodes are often near 1 together."""
    rng = np.random.default_rng(0)
    scores = rng.binomial(20, rng.beta(10 * mean, 10 * (1 - mean), (8000, 12))) / 20
    assert held(scores, mean) < held(scores, mean, shares=True)
    assert 0.93 < held(scores, mean, shares=True) < 0.97


def test_equal_learners_differ_in_one_of_twenty_comparisons():
    """Two learners with the same chance in every episode: their paired difference's interval lacks 0 as often."""
    rng = np.random.default_rng(0)
    chance = rng.choice(np.array(POOLS["accuracy"]), (8000, 12))
    one, two = (rng.binomial(25, chance) / 25 for _ in range(2))
    assert 0.03 < 1 - held(one - two, 0) < 0.055


def test_report_holds_what_the_episodes_give(pipeline, tmp_path):
    report = evaluate_episodes(pipeline, EPISODES, seed=4)
    assert (report.n_episodes, report.seed, report.metric) == (6, 4, "accuracy")
    assert report.mean["accuracy"] == pytest.approx(np.mean([r["accuracy"] for r in report.per_episode]))
    gold = [t for e in EPISODES for t in e.targets]
    guess = [p["target"] for e in EPISODES for p in pipeline.predict_episode(e)]
    assert report.pooled["accuracy"] == pytest.approx(
        np.mean([a == b for a, b in zip(gold, guess, strict=True)])
    )
    assert report.manifest_sha == write_episodes(tmp_path / "e.jsonl", EPISODES)
    assert "6 episodes, seed 4" in str(report)
    json.dumps(report.to_json())


def test_a_run_is_continued_where_it_was_cut(pipeline, tmp_path):
    path = tmp_path / "results" / "run.jsonl"
    whole = evaluate_episodes(pipeline, EPISODES, path=path)
    lines = path.read_text().splitlines()
    assert len(lines) == 1 + len(EPISODES)
    marked = json.loads(lines[1])
    marked["scores"]["accuracy"] = 0.123
    path.write_text("\n".join([lines[0], json.dumps(marked), lines[2], lines[3][:20]]))
    again = evaluate_episodes(pipeline, EPISODES, path=path)
    assert again.per_episode[0]["accuracy"] == 0.123, "finished episodes are read, not run again"
    assert again.per_episode[1:] == whole.per_episode[1:]
    assert len(path.read_text().splitlines()) == 1 + len(EPISODES)


def rows(n):
    return [
        example(f"{word} {i} today", label)
        for label, word in (("card", "cash"), ("law", "judge"))
        for i in range(n)
    ]


def drawn(n_query=2, split=0, seed=7):
    """Episodes whose ids say neither the number of queries nor the split."""
    examples = tuple(rows(20)[split * 4 :])
    counts = tuple({e.target: 1} for e in examples)
    data = TaskDataset(name="toy", task="classification", examples=examples, label_counts=counts)
    return episodes(NWayKShot(data, n_way=2, k_shot=1, n_query=n_query, seed=seed), 0, 3)


class TestStoredScores:
    @pytest.mark.parametrize("other", [{"n_query": 8}, {"split": 1}, {"seed": 8}], ids=str)
    def test_other_episodes_get_their_own_scores(self, pipeline, tmp_path, other):
        path = tmp_path / "scores.jsonl"
        first = evaluate_episodes(pipeline, drawn(), path=path)
        assert evaluate_episodes(pipeline, drawn(**other), path=path).per_episode == (
            evaluate_episodes(pipeline, drawn(**other)).per_episode
        )
        path.write_text(path.read_text().replace('"accuracy":', '"marked":'))
        assert "marked" in evaluate_episodes(pipeline, drawn(), path=path).mean, "these are still there"
        assert first.seed == 7
        assert "seed 7" in str(first)

    def test_other_models_are_refused(self, pipeline, tiny_encoder_folder, tmp_path, monkeypatch):
        path = tmp_path / "scores.jsonl"
        evaluate_episodes(pipeline, drawn(), path=path)

        def made(learner="prototypical", config=None, task_config=None, **options):
            encoder = Encoder.from_pretrained(tiny_encoder_folder, **options)
            return new_pipeline("classification", task_config or {}, encoder, learner, config)

        evaluate_episodes(made(), drawn(), path=path)
        meta_trained, adapted = made(), made()
        with torch.no_grad():
            meta_trained.learner.log_temperature += 1.0
        adapted.learner.encoder.attach(LoraConfig(r=2, target_modules=["query"]))
        untrained = adapted.learner.encoder
        for model, part in (
            (made("ridge"), "learner, learner_config, trained"),
            (made(config={"temperature": 2.0}), "learner_config, trained"),
            (made(layers=(1,)), "encoder"),
            (made(task_config={"multi_label": True}), "task_options"),
            (meta_trained, "trained"),
            (adapted, "adapter, trained"),
        ):
            with pytest.raises(FewShotError, match=rf"results of another run \(another ({part})\)"):
                evaluate_episodes(model, drawn(), path=path)
        evaluate_episodes(adapted, drawn(), path=tmp_path / "adapted.jsonl")
        with torch.no_grad():
            next(iter(untrained.adapter.values())).add_(1.0)
        with pytest.raises(FewShotError, match="another trained"):
            evaluate_episodes(adapted, drawn(), path=tmp_path / "adapted.jsonl")
        monkeypatch.setattr("fewshot_nlp.evaluator.VERSION", "0.0.1")
        with pytest.raises(FewShotError, match="another version"):
            evaluate_episodes(pipeline, drawn(), path=path)

    def test_another_family_of_encoders_is_refused(self, pipeline, tiny_encoder_folder, tmp_path):
        path = tmp_path / "scores.jsonl"
        evaluate_episodes(pipeline, drawn(), path=path)
        folder = of_family(tmp_path / "roberta", tiny_encoder_folder, RobertaConfig(**SIZE, **SIX))
        other = new_pipeline("classification", {}, Encoder.from_pretrained(folder), "prototypical", None)
        with pytest.raises(FewShotError, match=r"results of another run \(another encoder"):
            evaluate_episodes(other, drawn(), path=path)

    def test_a_sampler_is_a_stream(self, pipeline):
        sampler = drawn().sampler
        assert evaluate_episodes(pipeline, sampler, n_episodes=3).per_episode == (
            evaluate_episodes(pipeline, list(drawn())).per_episode
        )
        assert evaluate_episodes(pipeline, list(drawn())).seed is None


def test_wrong_episodes_are_refused(pipeline, tiny_encoder_folder):
    with pytest.raises(FewShotError, match="no episodes"):
        evaluate_episodes(pipeline, [])
    ner = FewShotNER.from_pretrained(tiny_encoder_folder, learner="prototypical")
    with pytest.raises(FewShotError, match="is of the task classification, the model of ner"):
        evaluate_episodes(ner, EPISODES)


def test_an_episode_without_gold_entities_is_right_where_nothing_is_found(tiny_encoder_folder, monkeypatch):
    """The score of each episode is what seqeval says with ``zero_division=1``."""
    ner = FewShotNER.from_pretrained(tiny_encoder_folder, learner="prototypical")
    none = ["O", "O", "O"]
    support = (Example({"tokens": ["the", "judge", "paid"]}, ["O", "B-PER", "O"]),)
    named = {"task": "ner", "support": support, "label_names": ("PER",), "task_id": "t"}
    both = [
        Episode(query=(Example({"tokens": ["my", word, "now"]}, none),), episode_id=f"t/{word}", **named)
        for word in ("bank", "card")
    ]
    found = [none, ["O", "B-PER", "O"]]
    guesses = iter(found)
    monkeypatch.setattr(
        type(ner.pipeline),
        "predict_episode",
        lambda self, episode: [{"target": next(guesses), "entities": []} for _ in episode.query],
    )
    scores = [each["entity_f1_strict_iob2"] for each in evaluate_episodes(ner, both).per_episode]
    expected = [f1_score([none], [guess], mode="strict", scheme=IOB2, zero_division=1) for guess in found]
    assert scores == expected == [1.0, 0.0]


def test_episodes_keep_their_promises(tmp_path):
    first = EPISODES[0]
    fields = {"task": "classification", "task_id": "t", "episode_id": "x", "label_names": ("card", "law")}
    with pytest.raises(FewShotError, match="1 of 2 query inputs are also in the support set"):
        Episode(support=first.support, query=(first.support[0], first.query[0]), **fields)
    with pytest.raises(FewShotError, match="0 support and 2 query"):
        Episode(support=(), query=first.query, **fields)
    with pytest.raises(FewShotError, match="sorted and unique"):
        Episode(support=first.support, query=first.query, **{**fields, "label_names": ("law", "card")})
    assert all(not hasattr(q, "target") for q in first.queries)
    path = tmp_path / "episodes.jsonl"
    digest = write_episodes(path, EPISODES)
    assert read_episodes(path) == (EPISODES, digest)
    path.write_text(path.read_text()[:-30])
    with pytest.raises(FewShotError, match="changed or cut short"):
        read_episodes(path)

    def broken():
        yield first
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_episodes(tmp_path / "b.jsonl", broken())
    assert not list(tmp_path.glob("b.jsonl*"))
