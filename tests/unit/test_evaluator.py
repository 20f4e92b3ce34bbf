"""The evaluator: intervals, pooling, manifests, journals that are continued."""

import json

import numpy as np
import pytest
from scipy import stats

from fewshot_nlp import FewShotError, FewShotNER, evaluate_episodes
from fewshot_nlp.backbone import Encoder
from fewshot_nlp.episode import Episode, Example, read_episodes, write_episodes
from fewshot_nlp.evaluator import bootstrap_interval, mean_and_interval
from fewshot_nlp.persistence.storage import new_pipeline


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


def test_bootstrap_agrees_with_scipy_and_its_seed():
    values = np.random.default_rng(0).uniform(size=40)
    low, high = bootstrap_interval(values, seed=1)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=9999, method="percentile", rng=2
    ).confidence_interval
    assert (low, high) == (pytest.approx(theirs.low, abs=0.01), pytest.approx(theirs.high, abs=0.01))
    assert bootstrap_interval(values, seed=1) == (low, high)
    assert bootstrap_interval(values, seed=3) != (low, high)


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
    with pytest.raises(FewShotError, match="results of another run"):
        evaluate_episodes(pipeline, EPISODES, path=path, seed=9)


def test_wrong_episodes_are_refused(pipeline, tiny_encoder_folder):
    with pytest.raises(FewShotError, match="no episodes"):
        evaluate_episodes(pipeline, [])
    ner = FewShotNER.from_pretrained(tiny_encoder_folder, learner="prototypical")
    with pytest.raises(FewShotError, match="is of the task classification, the model of ner"):
        evaluate_episodes(ner, EPISODES)


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
