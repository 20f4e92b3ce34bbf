"""Translation: mixtures against brute force, decoding by hand, glossaries, bounds, metrics, users' mistakes."""

import html
import logging
import textwrap
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fewshot_nlp.backbone import Seq2Seq
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.memory.index import Index
from fewshot_nlp.metrics.translation import corpus_scores, paired_bootstrap, signatures
from fewshot_nlp.models import FewShotTranslator
from fewshot_nlp.modules.interpolation import adaptive_mass, by_content, choose_fixed, mix, train_adaptive
from fewshot_nlp.tasks.glossary import find_terms, with_terms
from fewshot_nlp.tasks.translation import Translation

WORDS = "bank card cash judge law court doctor letter order money".split()  # noqa: SIM905
TEXTS = ["knab eht", "egduj eht dlot", "drac ym tsol"]


def pair(*words: str) -> dict[str, Any]:
    return {"translation": {"xx": " ".join(w[::-1] for w in words), "en": " ".join(words)}}


ROWS = [pair("the", a, "for", b) for a, b in zip(WORDS, WORDS[1:] + WORDS[:1], strict=True)]


@pytest.fixture
def load(tiny_translator_folder: Path) -> Any:
    def load(learner: str = "nearest_neighbour", beams: int = 1, **config: Any) -> FewShotTranslator:
        return FewShotTranslator.from_pretrained(
            tiny_translator_folder, learner=learner, learner_config=config, task_config={"num_beams": beams}
        )

    return load


@pytest.fixture
def tokenizer(tiny_translator_folder: Path) -> Any:
    return Seq2Seq.from_pretrained(tiny_translator_folder).tokenizer


def greedy(encoder: Seq2Seq, text: str, distribution: Any, limit: int) -> list[int]:
    """Token after token by transformers' own forward pass; ``distribution`` mixes hidden state and model's softmax."""
    source = torch.tensor(encoder.tokenizer.sources([text]))
    read = [encoder.tokenizer.start]
    with torch.no_grad():
        for step in range(limit):
            output = encoder.model(
                input_ids=source, decoder_input_ids=torch.tensor([read]), output_hidden_states=True
            )
            logits = output.logits[0, -1]
            chance = distribution(output.decoder_hidden_states[-1][0, -1].numpy(), logits.softmax(0).numpy())
            token = int(chance.argmax())
            if token == encoder.tokenizer.end or step == limit - 1:
                break
            read.append(token)
    return read[1:]


def brute_force(keys: np.ndarray, values: np.ndarray, k: int, share: float, temperature: float) -> Any:
    """Khandelwal et al. 2021, equations 2 and 3, neighbour by neighbour."""

    def distribution(feature: np.ndarray, own: np.ndarray) -> np.ndarray:
        squares = ((keys - feature) ** 2).sum(axis=1)
        near = np.argsort(squares)[:k]
        weight = np.exp(-(squares[near] - squares[near].min()) / temperature)
        result = (1 - share) * own.astype(np.float64)
        for number, mass in zip(near, weight / weight.sum(), strict=True):
            result[values[number]] += share * mass
        return result

    return distribution


def limit_of(encoder: Seq2Seq, text: str) -> int:
    return 2 * len(encoder.tokenizer.sources([text])[0]) + 10


class TestMixture:
    def test_scores_equal_brute_force(self, load: Any) -> None:
        mt = load(k=5, metric="euclidean", temperature=7.0, interpolation=0.4).adapt(ROWS)
        model = mt._model
        state = {name: value.numpy() for name, value in model.adapted.state.items()}
        encoder = mt.pipeline.learner.encoder
        batch = mt.pipeline.task.collate(
            mt.pipeline.task.examples(ROWS[:2]), (), encoder.tokenizer, with_targets=True
        )
        features = encoder.features(batch)
        own = encoder.head.scores({}, features).exp().numpy()
        expected = brute_force(state["keys"], state["values"], 5, 0.4, 7.0)
        got = model.adapted.scores(batch).exp().numpy()
        for row, feature, prior in zip(got, features.numpy(), own, strict=True):
            np.testing.assert_allclose(row, expected(feature, prior), rtol=2e-3, atol=1e-6)
        np.testing.assert_allclose(got.sum(axis=1), 1, rtol=1e-5)

    def test_keys_are_hidden_states_and_values_the_next_tokens(self, load: Any) -> None:
        mt = load(k=1, metric="euclidean", temperature=1.0, interpolation=0.5, half=False).adapt(ROWS[:1])
        encoder, state = mt.pipeline.learner.encoder, mt._model.adapted.state
        row = encoder.tokenizer.bare_targets([ROWS[0]["translation"]["en"]])[0]
        assert state["values"].tolist() == [*row, encoder.tokenizer.end]
        with torch.no_grad():
            hidden = encoder.model(
                input_ids=torch.tensor(encoder.tokenizer.sources([ROWS[0]["translation"]["xx"]])),
                decoder_input_ids=torch.tensor([[encoder.tokenizer.start, *row]]),
                output_hidden_states=True,
            ).decoder_hidden_states[-1][0]
        torch.testing.assert_close(state["keys"], hidden, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("beams", [1, 3])
    def test_decoding_equals_a_loop_by_hand(self, load: Any, beams: int) -> None:
        """Beams of 1 token's choice: three beams find at least the greedy sequence's probability."""
        mt = load(k=4, metric="euclidean", temperature=5.0, interpolation=0.7, beams=beams).adapt(ROWS)
        encoder, state = mt.pipeline.learner.encoder, mt._model.adapted.state
        distribution = brute_force(state["keys"].numpy(), state["values"].numpy(), 4, 0.7, 5.0)
        for text in TEXTS:
            by_hand = greedy(encoder, text, distribution, limit_of(encoder, text))
            expected = encoder.tokenizer.decode([by_hand])[0]
            if beams == 1:
                assert mt.predict([text]) == [expected]
            else:
                assert log_chance(mt, text, mt.predict([text])[0]) >= log_chance(mt, text, expected) - 1e-4

    def test_without_a_memory_decoding_is_the_model_s_own(self, load: Any) -> None:
        mt = load()
        encoder = mt.pipeline.learner.encoder
        for text in TEXTS:
            by_hand = greedy(encoder, text, lambda _, own: own, limit_of(encoder, text))
            assert mt.predict([text]) == encoder.tokenizer.decode([by_hand])

    def test_a_full_memory_says_what_it_saw(self, load: Any) -> None:
        mt = load(k=1, metric="euclidean", temperature=1.0, interpolation=0.95).adapt(ROWS)
        assert mt.predict([r["translation"]["xx"] for r in ROWS]) == [r["translation"]["en"] for r in ROWS]

    def test_prototypes_mix_by_the_same_equation(self, load: Any) -> None:
        mt = load("prototypical", metric="euclidean", temperature=6.0, interpolation=0.3).adapt(ROWS)
        task, encoder = mt.pipeline.task, mt.pipeline.learner.encoder
        support = task.collate(task.examples(ROWS), (), encoder.tokenizer, with_targets=True)
        features, gold = encoder.features(support).numpy(), support.gold.numpy()
        seen = np.unique(gold)
        means = np.stack([features[gold == c].mean(axis=0) for c in seen])
        expected = brute_force(means, seen, len(seen), 0.3, 6.0)
        own = encoder.head.scores({}, torch.from_numpy(features)).exp().numpy()
        got = mt._model.adapted.scores(support).exp().numpy()
        for row, feature, prior in zip(got, features, own, strict=True):
            np.testing.assert_allclose(row, expected(feature, prior), rtol=2e-3, atol=1e-6)

    def test_prototypes_choose_their_share_beside_the_head_of_plain_states(
        self, load: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        mt = load("prototypical")  # by cosines
        task, encoder = mt.pipeline.task, mt.pipeline.learner.encoder
        support = task.collate(task.examples(ROWS), (), encoder.tokenizer, with_targets=True)
        asked = []
        plain = encoder.head.scores
        monkeypatch.setattr(
            encoder.head, "scores", lambda s, view, w=None: asked.append(view) or plain(s, view, w)
        )
        mt.adapt(ROWS)
        groups = torch.tensor(list(dict.fromkeys(support.groups[by_content(support)].tolist())))
        held = torch.isin(support.groups, groups[::2])
        torch.testing.assert_close(asked[0], encoder.features(support)[held])

    def test_a_share_of_zero_is_kept_even_for_one_pair(self, load: Any) -> None:
        for learner in ("nearest_neighbour", "prototypical"):
            mt = load(learner, interpolation=0.0, temperature=None).adapt(ROWS[:1])
            assert float(mt._model.adapted.state["interpolation"]) == 0.0

    def test_the_chosen_mixture_is_the_likeliest(self) -> None:
        random = np.random.default_rng(0)
        distances = torch.from_numpy(random.gamma(2.0, size=(40, 4))).sort(dim=1).values
        hit = torch.from_numpy((random.random((40, 4)) < 0.4).astype(float))
        prior = torch.from_numpy(np.log(random.uniform(0.05, 0.6, 40)))
        chosen = choose_fixed(distances, hit, prior)

        def likelihood(share: float, temperature: float) -> float:
            weight = np.exp(-distances.numpy() / temperature)
            memory = (weight / weight.sum(axis=1, keepdims=True) * hit.numpy()).sum(axis=1)
            return float(np.log(share * memory + (1 - share) * np.exp(prior.numpy())).mean())

        scale = float(distances.mean())
        best = max(
            (likelihood(s / 20, t * scale), s / 20) for s in range(19) for t in (0.03, 0.1, 0.2, 0.5, 1, 2)
        )
        got = likelihood(float(chosen["interpolation"]), float(chosen["temperature"]))
        assert got == pytest.approx(best[0], abs=1e-6)

    @pytest.mark.parametrize("hits", [[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    def test_of_equal_temperatures_the_first_is_taken(self, hits: list[float]) -> None:
        """Neighbours at one distance weigh the same at every temperature."""
        distances = torch.full((5, 2), 4.0)
        chosen = choose_fixed(distances, torch.tensor([hits] * 5), torch.full((5,), 0.1).log())
        assert float(chosen["temperature"]) == pytest.approx(0.03 * 4)
        assert float(chosen["interpolation"]) == pytest.approx(0.9 if any(hits) else 0.0)

    def test_choices_look_at_content_not_at_order(self, tokenizer: Any) -> None:
        task = Translation(source="xx", target="en")
        for rows in (ROWS, ROWS[::-1]):
            batch = task.collate(task.examples(rows), (), tokenizer, with_targets=True)
            order = by_content(batch)
            assert sorted(order.tolist()) == list(range(batch.n_slots))
            texts = [batch.items[g].inputs["text"] for g in batch.groups[order].tolist()]
            assert texts == sorted(texts)


def log_chance(mt: FewShotTranslator, text: str, translation: str) -> float:
    """Log-probability a token of a translation, under the adapted model."""
    task, encoder = mt.pipeline.task, mt.pipeline.learner.encoder
    examples = task.examples([{"translation": {"xx": text, "en": translation}}])
    batch = task.collate(examples, (), encoder.tokenizer, with_targets=True)
    return -float(batch.loss(mt._model.adapted.scores(batch)))


class TestAdaptiveMixing:
    def test_masses_equal_the_equations_by_hand(self) -> None:
        """Zheng et al. 2021: p = sum over k in {0, 1, 2, 4} of p_meta(k) p_k, here as each neighbour's mass."""
        generator = torch.Generator().manual_seed(0)
        distances = torch.rand(6, 4, generator=generator).sort(dim=1).values * 9
        classes = torch.tensor(
            [[3, 3, 1, 3], [0, 1, 2, 3], [5, 5, 5, 5], [2, 1, 2, 1], [0, 0, 1, 2], [4, 3, 4, 4]]
        )
        network = {
            "mix.in": torch.randn(32, 8, generator=generator),
            "mix.in_bias": torch.randn(32, generator=generator),
            "mix.out": torch.randn(4, 32, generator=generator),
            "mix.out_bias": torch.randn(4, generator=generator),
            "mix.temperature": torch.tensor(0.7),
            "mix.scale": torch.tensor(4.5),
        }
        w = {name: value.double().numpy() for name, value in network.items()}
        got = adaptive_mass(network, distances, classes).numpy()
        for row, (d, c) in enumerate(zip(distances.double().numpy(), classes.numpy(), strict=True)):
            distinct = [len(set(c[: i + 1].tolist())) / (i + 1) for i in range(4)]
            hidden = np.tanh(w["mix.in"] @ np.concatenate([d / 4.5, distinct]) + w["mix.in_bias"])
            choice = np.exp(w["mix.out"] @ hidden + w["mix.out_bias"])
            choice /= choice.sum()
            expected = np.zeros(4)
            for number, k in enumerate((1, 2, 4), start=1):
                near = np.exp(-d[:k] / np.exp(0.7))
                expected[:k] += choice[number] * near / near.sum()
            np.testing.assert_allclose(got[row], expected, rtol=1e-4)
            assert expected.sum() == pytest.approx(1 - choice[0])

    def test_training_finds_neighbours_that_can_be_trusted(self) -> None:
        """Near neighbours are right and far ones wrong: the network must see the difference, one share cannot."""
        random = torch.Generator().manual_seed(1)
        near = torch.rand(200, 4, generator=random) + torch.tensor([0.2, 20.0]).repeat(100)[:, None]
        hit = (near < 10).float()
        classes = torch.zeros(200, 4, dtype=torch.long)
        prior = torch.full((200,), 0.3).log()
        network = train_adaptive(near.sort(dim=1).values, classes, hit, prior)
        mass = adaptive_mass(network, near.sort(dim=1).values, classes).sum(dim=1)
        assert mass[::2].mean() > 0.8 > 0.2 > mass[1::2].mean()

    def test_neighbours_that_are_not_there_have_no_mass(self) -> None:
        distances = torch.tensor([[1.0, 2.0, torch.inf, torch.inf]] * 8)
        network = train_adaptive(
            distances, torch.zeros(8, 4, dtype=torch.long), torch.ones(8, 4), torch.zeros(8) - 1
        )
        assert all(torch.isfinite(value).all() for value in network.values())
        mass = adaptive_mass(network, distances, torch.zeros(8, 4, dtype=torch.long))
        assert float(mass[:, 2:].max()) < 1e-6
        assert float(mass[:, :2].sum(dim=1).min()) > 0.1

    def test_it_decodes(self, load: Any) -> None:
        mt = load(k=4, metric="euclidean", mixing="adaptive").adapt(ROWS)
        assert "mix.in" in mt._model.adapted.state
        plain = load()
        texts = [r["translation"]["xx"] for r in ROWS]
        gold = [r["translation"]["en"] for r in ROWS]
        assert (
            corpus_scores(gold, mt.predict(texts))["chrf"] > corpus_scores(gold, plain.predict(texts))["chrf"]
        )

    @pytest.mark.parametrize(("share", "temperature"), [(0.25, None), (1.0, 3.0), (None, 7.0), (0.0, 1.0)])
    def test_what_is_given_is_obeyed(self, load: Any, share: float | None, temperature: float | None) -> None:
        given = {"interpolation": share, "temperature": temperature}
        mt = load(k=4, metric="euclidean", mixing="adaptive", **given).adapt(ROWS[:4])
        state = mt._model.adapted.state
        if temperature is not None:
            assert float(state["mix.temperature"].exp()) == pytest.approx(temperature)
        near = torch.rand(6, 4).sort(dim=1).values * 9
        total = adaptive_mass(state, near, torch.randint(5, (6, 4))).sum(dim=1)
        if share is not None:
            torch.testing.assert_close(total, torch.full((6,), share))

    def test_mixing_keeps_the_model_s_share(self) -> None:
        prior = torch.tensor([[0.5, 0.3, 0.2]]).log()
        got = mix(prior, torch.tensor([[2, 2]]), torch.tensor([[0.25, 0.25]])).exp()
        torch.testing.assert_close(got, torch.tensor([[0.25, 0.15, 0.6]]))


class TestDecoding:
    @pytest.mark.parametrize("beams", [1, 4])
    def test_a_text_alone_is_as_in_a_batch(self, load: Any, beams: int) -> None:
        mt = load(k=4, metric="euclidean", temperature=5.0, interpolation=0.5, beams=beams).adapt(ROWS)
        texts = [*TEXTS, "knab", "eht rof ym drac dna ym knab tnuocca"]
        together = mt.predict(texts)
        assert together == [mt.predict([text])[0] for text in texts]
        assert together == mt.predict(texts[::-1])[::-1]

    def test_beams_mix_at_every_step(self, load: Any) -> None:
        """The memory alone speaks (share 0.95, one neighbour): beams must say what greedy says."""
        rows = [r["translation"]["xx"] for r in ROWS]
        config = {"k": 1, "metric": "euclidean", "temperature": 1.0, "interpolation": 0.95}
        one, four = (load(beams=b, **config).adapt(ROWS).predict(rows) for b in (1, 4))
        assert one == four == [r["translation"]["en"] for r in ROWS]

    def test_the_length_penalty_is_the_model_s_own_unless_one_is_given(
        self, tiny_translator_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen = []
        for option in (None, 0.5):
            mt = FewShotTranslator.from_pretrained(
                tiny_translator_folder, task_config={"length_penalty": option}
            )
            model = mt.pipeline.learner.encoder.model
            model.generation_config.length_penalty = 2.0
            generate = model.generate
            monkeypatch.setattr(
                model,
                "generate",
                lambda generate=generate, **given: (
                    seen.append(given["generation_config"].length_penalty) or generate(**given)
                ),
            )
            mt.predict(TEXTS[:1])
        assert seen == [2.0, 0.5]

    def test_outputs_that_a_model_s_own_file_asks_for_are_not_made(
        self, tiny_translator_folder: Path
    ) -> None:
        mt = FewShotTranslator.from_pretrained(tiny_translator_folder)
        expected = mt.predict(TEXTS)
        for name, value in (("output_hidden_states", "odd"), ("output_attentions", True)):
            setattr(mt.pipeline.learner.encoder.model.generation_config, name, value)
        assert mt.predict(TEXTS) == expected

    def test_without_beams_transformers_warns_of_no_length_penalty(
        self, tiny_translator_folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        log = logging.getLogger("transformers.generation.configuration_utils")
        monkeypatch.setattr(log, "handlers", [caplog.handler])
        options = {"length_penalty": 1.5, "num_beams": 1}
        mt = FewShotTranslator.from_pretrained(tiny_translator_folder, task_config=options)
        assert len(mt.predict(TEXTS[:1])) == 1
        assert caplog.text == ""

    @pytest.mark.parametrize("beams", [1, 3])
    def test_a_model_that_never_ends_is_stopped(self, load: Any, beams: int) -> None:
        mt = load(beams=beams)
        encoder = mt.pipeline.learner.encoder
        batch = mt.pipeline.queries([mt.pipeline.task.query(t) for t in TEXTS], ())

        def endless(features: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
            result = torch.full_like(prior, -50.0)
            result[:, 20] = 0.0
            result[:, encoder.tokenizer.end] = -torch.inf
            return result

        for row, text in zip(encoder.head.generate(batch, endless, num_beams=beams), TEXTS, strict=True):
            assert row == [20] * (limit_of(encoder, text) - 1)

    def test_the_window_bounds_it_too(self, load: Any) -> None:
        mt = load()
        encoder = mt.pipeline.learner.encoder
        batch = mt.pipeline.queries([mt.pipeline.task.query("eht " * 20)], ())

        def endless(features: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
            return torch.full_like(prior, -torch.inf).index_fill(1, torch.tensor([20]), 0.0)

        row = encoder.head.generate(batch, endless, num_beams=1)[0]
        assert len(row) < encoder.tokenizer.max_length <= limit_of(encoder, "eht " * 20)


class TestGlossary:
    @pytest.mark.parametrize("beams", [1, 4])
    def test_terms_are_in_the_translation(self, load: Any, beams: int) -> None:
        mt = load(beams=beams)
        glossary = {"knab": "credit union", "egduj": "magistrate"}
        both, one, none = mt.predict(["eht egduj knab", "knab eht", "ym drac"], glossary=glossary)
        assert "credit union" in both
        assert "magistrate" in both
        assert "credit union" in one
        assert "magistrate" not in one
        assert "credit union" not in none
        assert none == mt.predict(["ym drac"])[0]

    def test_the_task_s_own_option_and_the_call_s_are_added(self, tiny_translator_folder: Path) -> None:
        mt = FewShotTranslator.from_pretrained(
            tiny_translator_folder, task_config={"glossary": {"knab": "money shop"}, "num_beams": 2}
        )
        got = mt.predict(["knab eht egduj"], glossary={"egduj": "magistrate"})[0]
        assert "money shop" in got
        assert "magistrate" in got
        assert "magistrate" not in mt.predict(["knab eht egduj"])[0]

    def test_whole_words_the_longer_term_first_and_no_chains(self) -> None:
        assert with_terms("a b, a, ab, b", {"a b": "one", "a": "b", "b": "c"}) == "one, b, ab, c"

    @pytest.mark.parametrize(
        ("text", "term", "places"),
        [
            ("他在中国银行工作。", "银行", [4]),
            ("使用API的银行", "API", [2]),
            ("データベースとデータ", "データ", [7]),
            ("ガッコーとガッコ", "ガッコ", [5]),
            ("貸付ローン", "ローン", [2]),
            ("대법원과 법원의 판결", "법원", [5]),
            ("ธนาคารกรุงเทพ", "ธนาคาร", [0]),
            ("กำ", "ก", []),
            ("myAPI APIs API", "API", [11]),
            ("q\u0301ab q", "q", [5]),
        ],
    )
    def test_terms_of_scripts_without_blanks(self, text: str, term: str, places: list[int]) -> None:
        assert find_terms(text, {term: "x"}) == [(at, at + len(term), term) for at in places]

    @pytest.mark.parametrize(
        "blank", [" ", "\n", "\r\n", "  ", "\t \n", "\u00a0", "\u202f", "\u3000", " \u200b"]
    )
    def test_terms_across_any_blank(self, load: Any, blank: str) -> None:
        text = f"eht egduj{blank}knab ym"
        glossary = {"egduj knab": "credit union"}
        assert find_terms(text, glossary) == [(4, 13 + len(blank), "egduj knab")]
        assert with_terms(text, glossary) == "eht credit union ym"
        assert "credit union" in load().predict([text], glossary=glossary)[0]

    @pytest.mark.parametrize(
        ("text", "term"),
        [
            ("das Jugend\u00adhaus ist", "Jugendhaus"),
            ("das Jugend\u00ad\n  haus ist", "Jugendhaus"),
            ("das Jugendhaus ist", "Jugend\u00adhaus"),
            (unicodedata.normalize("NFD", "das Bürgerhäuschen ist"), "Bürgerhäuschen"),
            ("das Bürgerhäuschen ist", unicodedata.normalize("NFD", "Bürgerhäuschen")),
            (unicodedata.normalize("NFD", "das 한국 은행 ist"), "한국 은행"),
            ("das Haus\ufeff\nder Jugend ist", " Haus der  Jugend "),
            (html.unescape("das Haus der&nbsp;Ju&shy;gend ist"), "Haus der Jugend"),
            (textwrap.fill("das Haus der Jugend ist", 8).replace("\nist", " ist"), "Haus der Jugend"),
        ],
    )
    def test_soft_hyphens_and_composed_characters(self, text: str, term: str) -> None:
        assert with_terms(text, {term: "x"}) == "das x ist"

    @pytest.mark.parametrize(
        "text", ["Hausderjugend", "Haus-der Jugend", "Haus der Jugende\u0301", "Haus der", ""]
    )
    def test_what_is_not_the_term(self, text: str) -> None:
        assert with_terms(text, {"Haus der Jugend": "x"}) == text

    def test_what_cannot_be_spelt_is_refused(self, load: Any) -> None:
        with pytest.raises(FewShotError, match="cannot spell the glossary's '銀行'"):
            load().predict(["knab"], glossary={"knab": "銀行"})

    @pytest.mark.parametrize("glossary", [{"": "x"}, {"x": " "}, {"x": 3}, ["knab"]])
    def test_bad_entries(self, load: Any, glossary: Any) -> None:
        with pytest.raises(FewShotError, match="glossary"):
            load().predict(["knab"], glossary=glossary)


class TestMetrics:
    GOLD = ("the bank told me", "my card was lost", "the judge was late today", "we paid by card")
    ONE = ("the bank told me", "my card lost", "a judge late today", "we paid")
    TWO = ("bank me", "card", "judge was", "paid the card by")

    def test_scores_are_sacrebleu_s(self) -> None:
        import sacrebleu

        got = corpus_scores(self.GOLD, self.ONE)
        assert got == {
            "chrf": pytest.approx(sacrebleu.corpus_chrf(self.ONE, [self.GOLD]).score),
            "bleu": pytest.approx(sacrebleu.corpus_bleu(self.ONE, [self.GOLD]).score),
        }
        assert 0 < got["bleu"] < 100

    def test_signatures(self, load: Any) -> None:
        found = signatures()
        assert found == load().signatures
        assert found["bleu"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
        assert found["chrf"].startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:")

    def test_bootstrap_of_a_hand_made_case(self) -> None:
        gold, one, two = (list(side) * 8 for side in (self.GOLD, self.ONE, self.TWO))
        got = paired_bootstrap(gold, two, one, resamples=200)
        assert got["difference"] == pytest.approx(
            corpus_scores(gold, one)["chrf"] - corpus_scores(gold, two)["chrf"]
        )
        assert got["p"] == pytest.approx(1 / 201)  # better on every resample
        assert paired_bootstrap(gold, one, two, resamples=200)["difference"] == pytest.approx(
            -got["difference"]
        )
        same = paired_bootstrap(gold, one, one, resamples=50)
        assert same["difference"] == 0
        assert same["p"] == 1

    def test_bootstrap_interval_against_numpy(self) -> None:
        """Half the width of the middle 95 % of resampled corpora's scores, drawn anew here."""
        gold, one = list(self.GOLD) * 10, list(self.ONE) * 10
        got = paired_bootstrap(gold, one, one, resamples=400)
        random = np.random.default_rng(0)
        scores = []
        for _ in range(400):
            drawn = random.integers(0, len(gold), len(gold))
            scores.append(corpus_scores([gold[i] for i in drawn], [one[i] for i in drawn])["chrf"])
        half = (np.quantile(scores, 0.975) - np.quantile(scores, 0.025)) / 2
        assert got["system_ci95"] == pytest.approx(half, rel=0.25)

    def test_bootstrap_leaves_the_environment_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import os

        monkeypatch.setenv("SACREBLEU_SEED", "7")
        paired_bootstrap(self.GOLD, self.ONE, self.TWO, resamples=5)
        assert os.environ["SACREBLEU_SEED"] == "7"

    def test_forgetting_compares_before_and_after(self, load: Any) -> None:
        mt = load(k=1, metric="euclidean", temperature=1.0, interpolation=0.95)
        with pytest.raises(FewShotError, match="not adapted"):
            mt.forgetting(ROWS)
        gold, texts = ([r["translation"][key] for r in ROWS] for key in ("en", "xx"))
        before = corpus_scores(gold, mt.predict(texts))["chrf"]
        found = mt.adapt(ROWS).forgetting(ROWS)
        assert found["baseline"] == pytest.approx(before)
        assert found["system"] == pytest.approx(100)
        assert found["difference"] == pytest.approx(100 - before)


class TestMemory:
    def test_half_keys(self, load: Any) -> None:
        one, half = (load(k=2, metric="euclidean", half=h).adapt(ROWS) for h in (False, True))
        states = [m._model.adapted.state for m in (one, half)]
        assert states[1]["keys"].dtype == torch.float16
        assert states[1]["keys"].nbytes == len(states[1]["values"]) * 32 * 2  # 2 bytes a feature
        assert states[0]["keys"].nbytes == 2 * states[1]["keys"].nbytes
        texts = [r["translation"]["xx"] for r in ROWS]
        assert one.predict(texts) == half.predict(texts)

    @pytest.mark.parametrize("metric", ["euclidean", "cosine"])
    def test_exact_search_equals_numpy(self, metric: str) -> None:
        random = np.random.default_rng(0)
        keys, queries = random.normal(size=(50, 8)), random.normal(size=(7, 8))
        found, numbers = Index(torch.from_numpy(keys).float(), metric).search(
            torch.from_numpy(queries).float(), 5
        )
        if metric == "cosine":
            keys, queries = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (keys, queries))
            expected = 1 - queries @ keys.T
        else:
            expected = ((queries[:, None] - keys[None]) ** 2).sum(axis=2)
        order = np.argsort(expected, axis=1)[:, :5]
        assert numbers.tolist() == order.tolist()
        np.testing.assert_allclose(
            found.numpy(), np.take_along_axis(expected, order, 1), rtol=1e-3, atol=1e-4
        )

    def test_more_neighbours_than_keys(self) -> None:
        found, numbers = Index(torch.eye(3), "euclidean").search(torch.eye(3), 10)
        assert found.shape == numbers.shape == (3, 3)

    def test_faiss_agrees_on_small_sets(self) -> None:
        pytest.importorskip("faiss")
        generator = torch.Generator().manual_seed(0)
        keys, queries = torch.randn(300, 16, generator=generator), torch.randn(20, 16, generator=generator)
        for metric in ("euclidean", "cosine"):
            one, two = (Index(keys, metric, backend).search(queries, 4) for backend in ("exact", "faiss"))
            torch.testing.assert_close(one[0], two[0], rtol=1e-4, atol=1e-4)
            assert torch.equal(one[1], two[1])

    def test_faiss_that_is_not_there_is_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import sys

        monkeypatch.setitem(sys.modules, "faiss", None)
        with pytest.raises(FewShotError, match="pip install 'fewshot-nlp\\[faiss\\]'"):
            Index(torch.eye(4), "euclidean", "faiss")


class TestStorage:
    @pytest.mark.parametrize("learner", ["nearest_neighbour", "fine_tune"])
    def test_a_loaded_translator_says_the_same(self, load: Any, tmp_path: Path, learner: str) -> None:
        config = {"steps": 5, "lr": 0.01} if learner == "fine_tune" else {"k": 2, "half": True}
        mt = load(learner, beams=3, **config).adapt(ROWS)
        mt.save_pretrained(tmp_path / "model")
        again = FewShotTranslator.from_pretrained(tmp_path / "model")
        texts = [*TEXTS, ROWS[0]["translation"]["xx"]]
        assert again.predict(texts) == mt.predict(texts)
        assert again.pipeline.task == mt.pipeline.task

    def test_the_base_model_is_stored_once_and_whole(
        self, load: Any, tmp_path: Path, tiny_translator_folder: Path
    ) -> None:
        from transformers import AutoModelForSeq2SeqLM

        load("fine_tune", steps=1).adapt(ROWS[:2]).save_pretrained(tmp_path / "model")
        saved = tmp_path / "model" / "encoder"
        sizes = [(f / "model.safetensors").stat().st_size for f in (saved, tiny_translator_folder)]
        assert sizes[0] == pytest.approx(sizes[1], rel=0.15)
        one, two = (AutoModelForSeq2SeqLM.from_pretrained(f) for f in (saved, tiny_translator_folder))
        assert all(torch.equal(p, two.state_dict()[n]) for n, p in one.state_dict().items())
        assert one.generation_config.to_dict() == two.generation_config.to_dict()

    def test_a_card_is_written(self, load: Any, tmp_path: Path) -> None:
        load().adapt(ROWS).save_pretrained(tmp_path / "model")
        card = (tmp_path / "model" / "README.md").read_text()
        assert "pipeline_tag: translation" in card
        assert f"{len(ROWS)} examples" in card
        assert "FewShotTranslator" in card


class TestBadInput:
    @pytest.mark.parametrize(
        ("row", "message"),
        [
            (pair(""), "Row 1: 'xx' is empty"),
            ({"translation": {"xx": "knab", "en": "  "}}, "Row 1: 'en' is empty"),
            ({"translation": {"xx": "knab"}}, "Row 1: there is no 'en' among its languages, only: xx"),
            ({"translation": "knab"}, "Row 1: the column 'translation' holds 'knab' of type str"),
            ({"text": "knab"}, "there is no column 'translation'"),
            (
                {"translation": dict.fromkeys(("xx", "en"), "my card was lost")},
                "Row 1: source and target are the same",
            ),
        ],
    )
    def test_rows(self, load: Any, row: Any, message: str) -> None:
        with pytest.raises(FewShotError, match=message) as caught:
            load().adapt([row])
        assert "\n" not in str(caught.value)

    def test_a_query_without_the_source_language(self, load: Any) -> None:
        with pytest.raises(FewShotError, match="Input 1: there is no 'xx' among its languages, only: en"):
            load().predict([{"translation": {"en": "the bank"}}])

    @pytest.mark.parametrize("side", ["source", "target"])
    def test_too_long_texts(self, load: Any, side: str) -> None:
        row = {
            "translation": {"xx": "knab", "en": "bank"}
            | {{"source": "xx", "target": "en"}[side]: "the " * 70}
        }
        with pytest.raises(FewShotError, match=f"Row 2: the {side} text has .* the model's window is 64"):
            load().adapt([ROWS[0], row])
        if side == "source":
            with pytest.raises(FewShotError, match="Input 1: the source text has"):
                load().predict([row])

    def test_wrong_direction_is_warned_of(self, tiny_translator_folder: Path, caplog: Any) -> None:
        with caplog.at_level(logging.WARNING, logger="fewshot_nlp"):
            FewShotTranslator.from_pretrained(
                tiny_translator_folder, task_config={"source": "en", "target": "xx"}
            )
        assert "translates xx to en, but the task is en to xx" in caplog.text

    def test_the_model_s_direction_is_taken_silently(self, load: Any, caplog: Any) -> None:
        task = load().pipeline.task
        assert (task.source, task.target) == ("xx", "en")
        assert caplog.text == ""

    @pytest.mark.parametrize(
        "options",
        [{"source": "en"}, {"source": "de", "target": "de"}, {"num_beams": 0}, {"length_penalty": 9}],
    )
    def test_options(self, tiny_translator_folder: Path, options: Any) -> None:
        with pytest.raises(FewShotError):
            FewShotTranslator.from_pretrained(tiny_translator_folder, task_config=options)

    def test_an_encoder_does_not_translate(self, tiny_encoder_folder: Path) -> None:
        with pytest.raises(FewShotError, match="is a bert model, which does not translate"):
            FewShotTranslator.from_pretrained(tiny_encoder_folder)

    def test_max_length(self, tiny_translator_folder: Path) -> None:
        with pytest.raises(FewShotError, match="must be from 8 to the model's window of 64"):
            FewShotTranslator.from_pretrained(tiny_translator_folder, max_length=100)


def test_slots_read_what_was_decoded_before(tokenizer: Any) -> None:
    task = Translation(source="xx", target="en")
    batch = task.collate(task.examples(ROWS[:2]), (), tokenizer, with_targets=True)
    for number, row in enumerate(ROWS[:2]):
        tokens = [*tokenizer.bare_targets([row["translation"]["en"]])[0], tokenizer.end]
        own = batch.groups == number
        assert batch.gold[own].tolist() == tokens
        assert batch.windows[number] == [tokenizer.start, *tokens[:-1]]
        assert batch.spans[own.numpy(), 2].tolist() == list(range(len(tokens)))
    assert replace(batch, targets=None).n_classes == len(tokenizer.classes)


MEMORY = {"k": 1, "metric": "euclidean", "temperature": 0.1, "interpolation": 1.0}


class TestLengthAndBeams:
    LONG = (
        ("eht", "the bank lost the card of the judge and the letter of the doctor told the court to pay"),
        ("knab", "money"),
        ("egduj dna", "the judge and the doctor and the court and the law"),
    )

    @pytest.mark.parametrize("beams", [1, 2, 5])
    def test_what_the_memory_says_is_said_whole(self, load: Any, beams: int) -> None:
        rows = [{"translation": {"xx": a, "en": b}} for a, b in self.LONG]
        mt = load(beams=beams, **MEMORY).adapt(rows)
        assert mt.predict([a for a, _ in self.LONG]) == [b for _, b in self.LONG]

    @pytest.mark.parametrize("number", [1, 2, 3])
    def test_the_limit_is_the_largest_ratio_of_the_support(self, load: Any, number: int) -> None:
        rows = [{"translation": {"xx": a, "en": b}} for a, b in self.LONG[-number:]]
        tokenizer = load().pipeline.learner.encoder.tokenizer
        ratios = [
            len(t) / len(s)
            for s, t in zip(
                tokenizer.sources([a for a, _ in self.LONG[-number:]]),
                tokenizer.targets([b for _, b in self.LONG[-number:]]),
                strict=True,
            )
        ]
        found = float(load().adapt(rows)._model.decoding_parameters["max_ratio"])
        assert found == pytest.approx(max(2.0, *ratios))

    def test_the_limit_is_a_setting(self, load: Any, tiny_translator_folder: Path) -> None:
        rows = [{"translation": {"xx": a, "en": b}} for a, b in self.LONG]
        mt = FewShotTranslator.from_pretrained(
            tiny_translator_folder,
            learner="nearest_neighbour",
            learner_config=MEMORY,
            task_config={"max_ratio": 0.1},
        ).adapt(rows)
        tokenizer = mt.pipeline.learner.encoder.tokenizer
        (short,) = mt.predict([self.LONG[0][0]])
        assert self.LONG[0][1].startswith(short)
        assert len(tokenizer.bare_targets([short])[0]) <= 10
        for bad in (0, True, "3"):
            with pytest.raises(FewShotError, match=r"max_ratio is .*a number from 0\.1 to 1000"):
                Translation(max_ratio=bad)
