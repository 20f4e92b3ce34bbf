"""kNN-MT beside plain decoding, and adapting by memory beside one forward pass over the support pairs.

    OMP_NUM_THREADS=1 FEWSHOT_NLP_DATA=... python evaluation/speed/translation.py

Needs `pip install faiss-cpu`. Prints the table of evaluation/results/speed.md.
"""

from typing import Any

import torch
from common import HEAD, interleaved, line, ratio

from fewshot_nlp import FewShotTranslator
from fewshot_nlp.sources import load_rows
from fewshot_nlp.tasks.translation import Translation

N_KEYS = 100_000
CONFIG = Translation.defaults["nearest_neighbour"].learner


def memory(search: str, n_keys: int, num_beams: int) -> FewShotTranslator:
    """A model whose memory holds exactly so many keys."""
    config = {**CONFIG, "search": search}
    mt = FewShotTranslator.from_pretrained(
        learner="nearest_neighbour", learner_config=config, task_config={"num_beams": num_beams}
    )
    mt.adapt(load_rows("d365_finance_de_en", "train")[: n_keys // 16])
    state = mt._model.adapted.state
    for name in ("keys", "values"):
        if len(state[name]) < n_keys:
            raise SystemExit(f"only {len(state[name])} keys of {n_keys}")
        state[name] = state[name][:n_keys].clone()
    return mt


def decoding(num_beams: int, n_texts: int = 64) -> None:
    texts = [r["translation"]["de"] for r in load_rows("d365_finance_de_en", "test")[:n_texts]]
    plain = FewShotTranslator.from_pretrained(task_config={"num_beams": num_beams})
    models = {"plain": plain} | {f"kNN-MT, {s}": memory(s, N_KEYS, num_beams) for s in ("exact", "faiss")}
    keys = models["kNN-MT, exact"]._model.adapted.state["keys"]
    # as many tokens for each: all decode to the plain model's lengths
    seconds = interleaved({name: lambda m=m: m.predict(texts) for name, m in models.items()}, repeats=5)
    tokens = {
        n: sum(map(len, m.pipeline.learner.encoder.tokenizer.bare_targets(m.predict(texts))))
        for n, m in models.items()
    }
    print(
        f"\n### Translation: {n_texts} texts of d365_finance, {num_beams} beams, {N_KEYS:,} keys of {keys.dtype}\n"
    )
    print(HEAD)
    print("\n".join(line(f"{name} ({tokens[name]} tokens)", values) for name, values in seconds.items()))
    for name in list(models)[1:]:
        each = ratio(seconds[name], seconds["plain"])
        per_token = each * tokens["plain"] / tokens[name]
        print(f"\n{name} / plain = {each:.2f}, a token {per_token:.2f} (goal 1.5)")
    print(f"\n{keys.element_size() * keys.shape[1] + 8} bytes a key and its value on disk")


def adapting(n_pairs: int = 300) -> None:
    mt = FewShotTranslator.from_pretrained(learner="nearest_neighbour", learner_config=CONFIG)
    examples = mt.pipeline.task.examples(load_rows("openehr_de_en", "train")[:n_pairs])
    encoder, task = mt.pipeline.learner.encoder, mt.pipeline.task

    @torch.no_grad()
    def forward() -> Any:
        return encoder.features(task.collate(examples, (), encoder.tokenizer, with_targets=True))

    seconds = interleaved(
        {"one forward pass": forward, "adapt": lambda: mt.pipeline.adapt(examples, ())}, repeats=7
    )
    print(f"\n### Translation: adapt by memory, {n_pairs} pairs of openehr\n")
    print(HEAD)
    print("\n".join(line(name, values) for name, values in seconds.items()))
    beyond = 100 * (ratio(seconds["adapt"], seconds["one forward pass"]) - 1)
    print(f"\nadapt beyond a forward pass with tokenising: {beyond:.1f} % (goal 10 %)")


def main() -> None:
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, one thread, medians of interleaved repeats")
    adapting()
    decoding(1)
    decoding(4)


if __name__ == "__main__":
    main()
