"""What each knob of meta-training does: a baseline and variants of it, alike but for the knob, on the same episodes.

    FEWSHOT_NLP_DATA=... python evaluation/ablations.py run
    python evaluation/ablations.py table > evaluation/results/ablations.md

A variant is a name and the settings in which it differs from its setup (`SETUPS`). The model measured is that after
the last outer step, so that nothing is chosen. It is measured on meta-validation episodes and on target episodes,
which are the same for every variant and seed; differences to the baseline are paired by episode and seed. A record is
appended as soon as it is there; a run that is started again leaves out what the file holds.
"""

import argparse
import json
import re
import tempfile
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from records import append_record, earlier_records, read_records

from fewshot_nlp.arguments import nested
from fewshot_nlp.episode import Episode
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.evaluator import mean_and_interval
from fewshot_nlp.persistence.storage import load
from fewshot_nlp.pipeline import Pipeline
from fewshot_nlp.sampling import SAMPLERS, TaskSampler
from fewshot_nlp.search.study import SearchConfig, search
from fewshot_nlp.sources import load_rows
from fewshot_nlp.tasks import TASKS
from fewshot_nlp.training import MetaTrainConfig, MetaTrainResult, meta_train
from fewshot_nlp.training.augmentation import Augmentation
from fewshot_nlp.training.config import EncoderSettings, SamplerSettings, Source
from fewshot_nlp.training.episodes import make_streams
from fewshot_nlp.training.outer_step import episode_seed, own_random_numbers
from fewshot_nlp.training.regularisation import Regularisation
from fewshot_nlp.training.selection import Selection

RESULTS = Path(__file__).with_name("results") / "ablations.jsonl"
BASELINE, SEARCH = "baseline", "search"
SPACE: dict[str, dict[str, Any]] = {
    "outer.lr": {"low": 3e-4, "high": 1e-2, "log": True},
    "adapter.r": {"choices": [4, 8, 16]},
    "learner_config.temperature": {"low": 0.03, "high": 0.3, "log": True},
    "outer.label_smoothing": {"low": 0.0, "high": 0.2},
}
"""What `SEARCH` moves: the best of eight trials by meta-validation, of which the last model is measured."""
KEYS = ("setup", "variant", "steps", "n_episodes", "seed")


def sources(*names: str) -> tuple[Source, ...]:
    """Their validation splits, which are small: a variant is to take a minute."""
    return tuple(Source(name=name, split="validation") for name in names)


COMMON: dict[str, Any] = {
    "adapter": {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": "all-linear"},
    "top_layers": 1,  # of the three that are run
    "outer.lr": 2e-3,
    "outer.meta_batch": 4,
    "validation.n_episodes": 2,
}
CLASSIFICATION: dict[str, Any] = {
    "task": "classification",
    "learner": "prototypical",
    "encoder": EncoderSettings(layers=(3,)),
    "data.sources": sources("clinc150", "hwu64", "stackoverflow20", "scicite", "csabstruct"),
    "validation.sources": sources("snips_intents"),
    "data.sampler": SamplerSettings(n_way=5, k_shot=(1, 2), n_query=2),
    "data.targets": ("banking77",),
}
GRADIENTS = {"inner_steps": 2, "inner_lr": 0.5, "head_lr": 2.0}
SETUPS: dict[str, dict[str, Any]] = {
    "prototypes": CLASSIFICATION,
    "gradients": CLASSIFICATION | {"learner": "maml", "learner_config": GRADIENTS},
    "fixed_head": CLASSIFICATION
    | {
        "learner": "maml",
        "learner_config": GRADIENTS | {"head": "meta", "n_classes": 5},
        "data.sources": sources("csabstruct"),
    },
    "entities": {
        "task": "ner",
        "learner": "prototypical",
        "encoder": EncoderSettings(layers=(3,)),
        "data.sources": sources("wikigold", "wnut17", "uner_ewt", "scierc", "snips_slots"),
        "validation.sources": sources("crossner_politics"),
        "data.sampler": SamplerSettings(n_way=3, k_shot=(1, 2), n_query=4, options={"query": "rows"}),
        "data.targets": ("bc5cdr",),
    },
}
"""What a setup's variants share. ``fixed_head`` meets the same five classes in every episode, and can memorise them."""

MEASURED: dict[str, dict[str, Any]] = {
    "prototypes": {"n_way": 10, "k_shot": 1, "n_query": 2},
    "gradients": {"n_way": 10, "k_shot": 1, "n_query": 2},
    "fixed_head": {"n_way": 5, "k_shot": 1, "n_query": 4},
    "entities": {"n_way": None, "k_shot": 2, "n_query": 5, "query": "rows"},
}
"""The target's episodes; meta-validation episodes are drawn as the setup's training episodes."""


def written_out(texts: Sequence[str], seed: int) -> list[str]:
    """A stand-in for back-translation, without a model: short forms written out, politeness dropped."""
    long = {"i'm": "i am", "what's": "what is", "can't": "cannot", "don't": "do not", "didn't": "did not",
            "it's": "it is", "please": "", "could you": "can you", "would you": "can you"}  # fmt: skip
    pattern = re.compile("|".join(map(re.escape, long)), re.IGNORECASE)
    return [pattern.sub(lambda found: long[found[0].lower()], text).strip() or text for text in texts]


def regularised(**settings: Any) -> dict[str, Any]:
    return {"outer.regularisation": Regularisation(**settings)}


def selected(**settings: Any) -> dict[str, Any]:
    return {"data.selection": Selection(**settings)}


def augmented(**settings: Any) -> dict[str, Any]:
    return {"data.augmentation": Augmentation(**settings)}


VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "prototypes": {
        BASELINE: {},
        "label_smoothing": {"outer.label_smoothing": 0.1},
        "weight_decay": {"outer.weight_decay": 5.0},
        "no_clipping": {"outer.max_grad_norm": None},
        "dropout": regularised(dropout="own"),
        "label_shuffle": regularised(label_shuffle=0.3),
        "name_dropout": regularised(name_dropout=0.5),
        "information": regularised(information=1e-4),
        "feature_mix": regularised(feature_mix=0.5),
        "word_dropout": augmented(word_dropout=0.1),
        "paraphrase": augmented(paraphrase=written_out, paraphrase_rate=0.5),
        "merge_labels": augmented(merge_labels=0.3),
        "temperature_mixing": {"data.mixture": "temperature", "data.temperature": 3.0},
        "curriculum_n_way": selected(curriculum="n_way"),
        "curriculum_k_shot": selected(curriculum="k_shot"),
        "curriculum_sources": selected(curriculum="sources"),
        "hard_tasks": selected(hard_temperature=0.3),
        "leakage_guard": selected(leakage_ngram=8),
        SEARCH: {},
    },
    "gradients": {
        BASELINE: {},
        "dropout": regularised(dropout="own"),
        "information": regularised(information=1e-4),
    },
    "fixed_head": {
        BASELINE: {},
        "label_shuffle": regularised(label_shuffle=1.0),
        "information": regularised(information=1e-4),
    },
    "entities": {
        BASELINE: {},
        "dropout": regularised(dropout="own"),
        "name_dropout": regularised(name_dropout=0.5),
        "information": regularised(information=1e-4),
        "feature_mix": regularised(feature_mix=0.5),
        "word_dropout": augmented(word_dropout=0.1),
        "mention_replacement": augmented(mention_replacement=0.5),
        "token_replacement": augmented(token_replacement=0.1),
        "merge_labels": augmented(merge_labels=0.3),
    },
}
"""For each setup the settings of `MetaTrainConfig` in which a variant differs."""


def config_of(
    setup: str, variant: str, options: argparse.Namespace, seed: int, folder: Path
) -> MetaTrainConfig:
    steps = options.steps
    own = {
        "outer.steps": steps,
        "outer.warmup": steps // 6,
        "validation.every": steps,
        "run.save_every": steps,
        "run.seed": seed,
        "run.output_dir": str(folder),
    }
    given = COMMON | SETUPS[setup] | own | VARIANTS[setup][variant]
    return MetaTrainConfig.from_dict(nested(given))


@cache
def episodes(setup: str, n_episodes: int) -> dict[str, list[Episode]]:
    """The episodes that all variants of a setup are measured on."""
    base = MetaTrainConfig.from_dict(nested(COMMON | SETUPS[setup] | {"run.output_dir": "-"}))
    task, name = TASKS.get(base.task)(), base.data.targets[0]
    val = make_streams(base, task).val
    assert val is not None
    target = SAMPLERS.get(TASKS.get(base.task).sampler)(
        task.dataset(load_rows(name, "test"), name), seed=0, **MEASURED[setup]
    )
    streams: dict[str, TaskSampler] = {"val": val, "target": target}
    return {part: [s.episode(i) for i in range(n_episodes)] for part, s in streams.items()}


def measured(pipeline: Pipeline, given: list[Episode]) -> dict[str, list[float]]:
    """Loss and primary metric of each episode's queries, after adapting as a user would."""
    task, scores = pipeline.task, {"loss": list[float](), "metric": list[float]()}
    with pipeline.learner.encoder.cached():
        for index, episode in enumerate(given):
            with own_random_numbers(episode_seed(0, index), torch.device("cpu")):
                model = pipeline.adapt(episode.support, episode.label_names)
                loss, predicted = model.measure(episode.query)
            found = task.metrics(*task.paired(episode.query, predicted), episode.label_names)
            scores["loss"].append(loss)
            scores["metric"].append(float(found[task.primary_metric]))
    return scores


def searched(config: MetaTrainConfig) -> MetaTrainResult:
    """The best of eight trials, on 20 meta-validation episodes; it sees no target."""
    base = Path(config.run.output_dir).with_name("base.yaml")
    base.write_text(json.dumps(config.to_dict()))  # JSON is YAML
    settings = {"validation.n_episodes": 20, "validation.every": -(-config.outer.steps // 3)}
    found = search(
        SearchConfig(
            base=str(base),
            output_dir=config.run.output_dir,
            space=SPACE,
            settings=settings,
            n_trials=8,
            startup_trials=4,
        )
    )
    print(found.values, found.figure, flush=True)
    return MetaTrainResult(folder=found.folder, history=read_records(found.folder.with_name("log.jsonl")))


def one(setup: str, variant: str, options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Meta-trains a variant and measures the model after the last step."""
    with tempfile.TemporaryDirectory() as scratch:
        config = config_of(setup, variant, options, seed, Path(scratch) / "run")
        began = time.perf_counter()
        result = searched(config) if variant == SEARCH else meta_train(config)
        seconds = round(time.perf_counter() - began, 1)
        pipeline = load(result.folder.with_name("final")).pipeline
    losses = [r["train_loss"] for r in result.history if "train_loss" in r]
    return {
        "metric": pipeline.task.primary_metric,
        "target_data": config.data.targets[0],
        "train_loss": sum(losses[-10:]) / len(losses[-10:]),
        "train_seconds": seconds,
        **{part: measured(pipeline, e) for part, e in episodes(setup, options.n_episodes).items()},
    }


def run(options: argparse.Namespace) -> None:
    done = {tuple(r[k] for k in KEYS) for r in earlier_records(options.out)}
    for seed in options.seeds:
        for setup in options.setups:
            for variant in VARIANTS[setup]:
                fixed = (setup, variant, options.steps, options.n_episodes, seed)
                if fixed in done or (options.variants and variant not in (BASELINE, *options.variants)):
                    continue
                try:
                    record = dict(zip(KEYS, fixed, strict=True)) | one(setup, variant, options, seed)
                except FewShotError as refused:
                    raise FewShotError(f"{setup}, {variant}: {refused}") from refused
                append_record(options.out, record)
                means = [sum(record[p][k]) / options.n_episodes for p in ("val", "target") for k in record[p]]
                print(*fixed, *(f"{m:.4f}" for m in means), record["train_seconds"], flush=True)


HEADER = """Each row is the baseline but for one setting, `VARIANTS` in `evaluation/ablations.py`, which made this page
(`python evaluation/ablations.py run`, then `table`). Behind a value is the half-width of its 95 % interval over
episodes; differences to the baseline are paired by episode and seed, and one whose interval holds 0 shows nothing. For
losses less is better. These are few outer steps of a small adapter: in a long run a knob can do something else.
"""


def table(path: Path) -> str:
    """One table a setup: means and paired differences, each with the half-width of its 95 % interval."""
    records = read_records(path)
    lines = ["# Ablations", "", *HEADER.splitlines(), ""]
    for setup in dict.fromkeys(r["setup"] for r in records):
        mine = [r for r in records if r["setup"] == setup]
        variants = {name: {r["seed"]: r for r in mine if r["variant"] == name} for name in
                    dict.fromkeys(r["variant"] for r in mine)}  # fmt: skip
        first = mine[0]
        seeds = ", ".join(str(s) for s in sorted(variants[BASELINE]))
        given = SETUPS[setup]
        lines += [
            f"## {setup}",
            "",
            f"`{given['learner']}` on {', '.join(source.name for source in given['sources'])}; "
            f"{first['steps']} outer steps of 4 episodes; {first['n_episodes']} meta-validation episodes and "
            f"{first['n_episodes']} target episodes ({first['target_data']}, {first['metric']}); seeds {seeds}. "
            "Episodes for meta-validation come from "
            f"{', '.join(source.name for source in given['validation.sources'])}.",
            "",
            "| variant | training loss | val. loss | difference | val. metric | difference | target loss | difference "
            "| target metric | difference |",
            "|---" * 10 + "|",
        ]
        for name, runs in variants.items():
            lines.append(row(name, runs, variants[BASELINE]))
        lines.append("")
    return "\n".join(lines)


def row(name: str, runs: dict[int, dict[str, Any]], baseline: dict[int, dict[str, Any]]) -> str:
    seeds = sorted(runs)
    cells = [f"`{name}`", f"{sum(runs[s]['train_loss'] for s in seeds) / len(seeds):.3f}"]
    for part in ("val", "target"):
        for key in ("loss", "metric"):
            values = [v for s in seeds for v in runs[s][part][key]]
            base = [v for s in seeds for v in baseline[s][part][key]]
            cells.append(shown(values))
            differences = [a - b for a, b in zip(values, base, strict=True)]
            cells.append("" if name == BASELINE else shown(differences, "+"))
    return "| " + " | ".join(cells) + " |"


def shown(values: list[float], sign: str = "") -> str:
    mean, half = mean_and_interval(values)
    return f"{mean:{sign}.3f}" + ("" if half is None else f" ± {half:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("what", choices=["run", "table"])
    parser.add_argument("--setups", nargs="*", default=list(SETUPS), choices=list(SETUPS))
    parser.add_argument("--variants", nargs="*", help="beside the baseline; default all")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1])
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--n-episodes", type=int, default=30, help="of meta-validation, and of the target")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(table(options.out)) if options.what == "table" else run(options)


if __name__ == "__main__":
    main()
