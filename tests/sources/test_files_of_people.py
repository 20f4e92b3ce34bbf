"""Files and folders as people have them: CoNLL in its dialects, logs after a crash, paths of home, moved runs."""

import json
import logging
import shutil

import pytest
from seqeval.scheme import IOBES, Entities

from fewshot_nlp import FewShotClassifier, FewShotError, FewShotTranslator, evaluate_episodes
from fewshot_nlp.episode import read_episodes, write_episodes
from fewshot_nlp.memory import MemoryStore
from fewshot_nlp.metrics.translation import paired_bootstrap
from fewshot_nlp.persistence.disk import user_path
from fewshot_nlp.persistence.json_lines import JsonLines
from fewshot_nlp.sampling import NWayKShot, episodes
from fewshot_nlp.sources import read_rows, write_rows
from fewshot_nlp.tasks.tags import check_tags, tag_spans
from fewshot_nlp.training.checkpoint import FORMAT, Checkpoint, load_newest, save_checkpoint
from fewshot_nlp.training.journal import Journal

ROWS = [
    {"text": f"{a} {b}", "label": label}
    for label, words in {"card": "my new lost card bank", "law": "judge court order law letter"}.items()
    for a in words.split()
    for b in ("today", "now")
]


def conll(tmp_path, text):
    path = tmp_path / "rows.conll"
    path.write_bytes(text.encode())
    return read_rows(path, "ner")


class TestConll:
    @pytest.mark.parametrize(
        "text",
        [
            "1 EU NNP B-ORG\n2 rejects VBZ O\n\n1 Anna NNP B-PER\n",
            "0\tEU\tB-ORG\n1\trejects\tO\n\n0\tAnna\tB-PER\n",
            # CoNLL-U with a range and an empty node, and comments
            "# sent_id = 1\n# text = EU rejects O\n1-2\tEU'\t_\tO\n1\tEU\tNNP\tB-ORG\n1.1\tx\t_\tO\n"
            "2\trejects\tV\tO\n\n# newpar\n1\tAnna\tNNP\tB-PER\n",
        ],
    )
    def test_a_column_that_counts_words_is_none_of_them(self, tmp_path, text):
        assert conll(tmp_path, text) == [
            {"tokens": ["EU", "rejects"], "ner_tags": ["B-ORG", "O"]},
            {"tokens": ["Anna"], "ner_tags": ["B-PER"]},
        ]

    @pytest.mark.parametrize(
        ("text", "tokens"),
        [
            ("1 B-NUM\n2 B-NUM\n", ["1", "2"]),
            ("1 CD B-NUM\n3 CD B-NUM\n", ["1", "3"]),
            ("1 CD B-NUM\n\n", ["1"]),
            ("2 CD B-NUM\n3 CD O\n", ["2", "3"]),
        ],
    )
    def test_numbers_that_are_words_stay_words(self, tmp_path, text, tokens):
        assert conll(tmp_path, text)[0]["tokens"] == tokens

    def test_comments_and_words_that_begin_alike(self, tmp_path):
        multiconer = "# id 5239d808\tdomain=en\nhis _ _ O\nsonny _ _ B-Artist\n\n"
        multiconer += "#\n# 2\n#tag\tB-TAG\n# O\n#1 _ _ I-TAG\n"
        assert conll(tmp_path, multiconer) == [
            {"tokens": ["his", "sonny"], "ner_tags": ["O", "B-Artist"]},
            {"tokens": ["#tag", "#", "#1"], "ner_tags": ["B-TAG", "O", "I-TAG"]},
        ]

    def test_empty_words(self, tmp_path, caplog):
        with caplog.at_level(logging.WARNING, logger="fewshot_nlp"):
            rows = conll(tmp_path, "Anna\tB-PER\n\tO\n O\nlives\tO\n\n\tO\n")
        assert rows == [{"tokens": ["Anna", "lives"], "ner_tags": ["B-PER", "O"]}]
        assert "3 empty words are left out" in caplog.text
        with pytest.raises(FewShotError, match=r"line 2: the word of the tag 'I-PER' is empty; add it"):
            conll(tmp_path, "Anna\tB-PER\n\tI-PER\n")

    @pytest.mark.parametrize(
        "tags",
        ["B-X E-X", "S-X S-X", "B-X I-X E-X S-X O B-Y E-Y", "O S-Y B-X E-X B-X I-X I-X E-X O"],
    )
    def test_ends_as_seqeval_reads_them(self, tags):
        """seqeval in strict IOBES mode finds the same entities; BMES and BILOU are the same under other letters."""
        entities = Entities([tags.split()], IOBES).entities[0]
        expected = [(e.tag, e.start, e.end) for e in entities]
        for letters in ({}, {"I": "M"}, {"E": "L", "S": "U"}):
            renamed = [letters.get(tag[0], tag[0]) + tag[1:] for tag in tags.split()]
            assert tag_spans(check_tags(renamed)) == expected

    def test_what_follows_an_end_begins_anew(self):
        assert check_tags(["B-X", "E-X", "I-X", "S-X", "M-X", "E-X"]) == [
            "B-X",
            "I-X",
            "B-X",
            "B-X",
            "B-X",
            "I-X",
        ]
        with pytest.raises(FewShotError, match="tag 3 is 'E-X', but no X begins before it"):
            check_tags(["B-X", "E-X", "E-X"], repair="error")


def records_of(path):
    found = JsonLines(path)
    return found.records, found.damaged


class TestLogsAfterACrash:
    DAMAGE = (b'{"step": 3, "lo', b"\0" * 300, b'\0\0\0{"step": 3}', b'{"step"\xff: 3}\n', b"{}\n[3]\n\n3\n")

    @pytest.mark.parametrize("damage", DAMAGE, ids=range(len(DAMAGE)))
    def test_a_run_s_log(self, tmp_path, damage):
        path = tmp_path / "log.jsonl"
        whole = [{"step": n, "loss": 1 / n} for n in (1, 2)]
        path.write_bytes("".join(json.dumps(r) + "\n" for r in whole).encode() + damage)
        log = Journal(path, 2, writes=True)
        assert log.records == whole
        log.add({"step": 3})
        assert records_of(path) == ([*whole, {"step": 3}], 0)

    def test_zero_bytes_in_the_middle(self, tmp_path):
        path = tmp_path / "log.jsonl"
        path.write_bytes(b'{"step": 1}\n\0\0\0\0{"step": 2}\n{"st\0\0\0\n{"step": 4}\n')
        assert records_of(path) == ([{"step": 1}, {"step": 2}, {"step": 4}], 1)
        JsonLines(path).append({"step": 5})
        assert records_of(path) == ([{"step": 1}, {"step": 2}, {"step": 4}, {"step": 5}], 0)

    @pytest.mark.parametrize("damage", [*DAMAGE, None], ids=range(len(DAMAGE) + 1))
    def test_scores_of_episodes(self, tmp_path, tiny_encoder_folder, damage):
        clf = FewShotClassifier.from_pretrained(tiny_encoder_folder, learner="prototypical")
        data = clf.pipeline.task.dataset(ROWS)

        def score(n, path=None):
            stream = episodes(NWayKShot(data, n_way=2, k_shot=1, n_query=2, seed=7), 0, n)
            return evaluate_episodes(clf, stream, path=path)

        path = tmp_path / "scores.jsonl"
        score(2, path)
        if damage is None:
            path.write_bytes(b"\0" * 100)
        else:
            path.write_bytes(path.read_bytes() + damage)
        assert score(3, path).mean == score(3).mean
        assert len(records_of(path)[0]) == 4
        assert records_of(path)[1] == 0


class TestPaths:
    def test_home_is_home_wherever_a_path_is_taken(self, tmp_path, tiny_encoder_folder, monkeypatch):
        home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
        for folder in (home, elsewhere):
            folder.mkdir()
        monkeypatch.setenv("HOME", str(home))
        monkeypatch.chdir(elsewhere)
        shutil.copytree(tiny_encoder_folder, home / "encoder")
        clf = FewShotClassifier.from_pretrained("~/encoder", learner="nearest_neighbour").adapt(ROWS)
        clf.save_pretrained("~/model")
        assert FewShotClassifier.from_pretrained("~/model").predict(["a card"]) == clf.predict(["a card"])
        clf.memory.store.save("~/store.safetensors")
        assert len(MemoryStore.load("~/store.safetensors").entries) == len(clf.memory.store.entries)
        write_rows("~/rows.jsonl", ROWS)
        assert read_rows("~/rows.jsonl", "classification") == ROWS
        data = clf.pipeline.task.dataset(ROWS)
        drawn = list(episodes(NWayKShot(data, n_way=2, k_shot=1, n_query=2, seed=7), 0, 2))
        write_episodes("~/episodes.jsonl", drawn)
        assert read_episodes("~/episodes.jsonl")[0] == drawn
        evaluate_episodes(clf, drawn, path="~/scores.jsonl")
        assert list(elsewhere.iterdir()) == []
        names = {"encoder", "model", "store.safetensors", "rows.jsonl", "episodes.jsonl", "scores.jsonl"}
        assert names <= {path.name for path in home.iterdir()}
        with pytest.raises(FewShotError, match="there is no such home folder"):
            user_path("~nobody-of-this-name/x")


CONFIG = {"seed": 0, "meta_batch": 1}


class TestRunsAndScores:
    def save(self, folder, step, number=FORMAT):
        saved = Checkpoint(step=step, tensors={}, config=CONFIG, fingerprints={}, best=None)
        path = save_checkpoint(folder, saved, keep_last=5) / "state.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"format": number}))
        return path

    @pytest.mark.parametrize(
        ("number", "age"), [(FORMAT + 1, "a later"), (FORMAT + 9, "a later"), (FORMAT - 1, "an earlier")]
    )
    def test_a_checkpoint_of_another_version_is_not_damaged(self, tmp_path, number, age):
        self.save(tmp_path, 1)
        self.save(tmp_path, 2, number)
        with pytest.raises(
            FewShotError, match=f"format {number}, of {age} version .* another output_dir"
        ) as caught:
            load_newest(tmp_path, CONFIG, {})
        assert "damaged" not in str(caught.value)
        assert "remove" not in str(caught.value)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["step-0000001", "step-0000002"]

    def test_a_damaged_one_is_passed_over(self, tmp_path):
        self.save(tmp_path, 1)
        self.save(tmp_path, 2).write_bytes(b"\0" * 50)
        found = load_newest(tmp_path, CONFIG, {})
        assert found is not None
        assert found.step == 1

    def test_forgetting_of_nothing_and_by_an_unknown_score(self, tiny_translator_folder):
        rows = [
            {"translation": {"xx": "eht knab", "en": "the bank"}},
            {"translation": {"xx": "wal", "en": "law"}},
        ]
        mt = FewShotTranslator.from_pretrained(tiny_translator_folder, learner="nearest_neighbour").adapt(
            rows
        )
        with pytest.raises(FewShotError, match="no translations to compare"):
            mt.forgetting([])
        with pytest.raises(FewShotError, match="metric is 'comet', but must be one of: chrf, bleu"):
            mt.forgetting(rows, metric="comet")
        with pytest.raises(FewShotError, match="metric is 'ter'"):
            paired_bootstrap(["a"], ["a"], ["a"], metric="ter")
