"""Every learner on every task: meta-trained alike on general sources, measured on medical, legal and finance targets.

    FEWSHOT_NLP_DATA=... python evaluation/family.py run
    python evaluation/family.py table > evaluation/results/family.md

Each learner has its default settings, the same number of meta-training episodes, the same outer loop and the same
target episodes (5-shot, test splits); what is trained is its own parameters and a LoRA adapter in the top two layers.
Nothing is chosen on targets: the model measured is the one with the least meta-validation loss, perhaps the untrained
one. A record a cell is appended as soon as it is there; a run that is started again leaves out what the file holds.
Learners that are not meta-trained (frozen baselines, and those whose fit has no gradient) are measured as they are.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from records import append_record, earlier_records, read_records

from fewshot_nlp.arguments import nested
from fewshot_nlp.episode import Episode
from fewshot_nlp.errors import FewShotError
from fewshot_nlp.evaluator import evaluate_episodes, mean_and_interval
from fewshot_nlp.learners import LEARNERS
from fewshot_nlp.persistence.storage import load
from fewshot_nlp.pipeline import Pipeline, TaskModel
from fewshot_nlp.sampling import SAMPLERS
from fewshot_nlp.sources import load_card, load_rows
from fewshot_nlp.tasks import TASKS
from fewshot_nlp.training import MetaTrainConfig, meta_train
from fewshot_nlp.training.assembly import build_pipeline
from fewshot_nlp.training.config import EncoderSettings, SamplerSettings, Source

RESULTS = Path(__file__).with_name("results") / "family.jsonl"
DOMAINS = ("medical", "legal", "finance")
UNADAPTED = "unadapted"
"""The model as it is, before any example: what a learner of translation is compared with."""
ADAPTER = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": "all-linear"}


def sources(*names: str, split: str = "train") -> tuple[Source, ...]:
    return tuple(Source(name=name, split=split) for name in names)


HEADER = """# Every learner on every task

Made by `evaluation/family.py` (which says how), from `family.jsonl`. Learners have their default settings; a LoRA
adapter in the top two layers (translation: in all) and the learner's own parameters are meta-trained on general
sources, and the model with the least meta-validation loss is measured on three target sets. Means and 95 %
intervals are over the same episodes for all; "level" means that the paired difference to the baseline before any
meta-training has an interval that holds 0. Seconds are processor time on one thread of a busy machine, with nothing
computed before.
"""

SETTINGS: dict[str, dict[str, Any]] = {
    "classification": {
        "data.sources": sources("clinc150", "hwu64", "stackoverflow20", "scicite", "csabstruct"),
        "validation.sources": sources("snips_intents", split="validation"),
        "data.targets": ("hallmarks_of_cancer", "unfair_tos", "fomc_stance"),
        "data.sampler": SamplerSettings(n_way=5, k_shot=(1, 2), n_query=1),
        "measured": {"n_way": 5, "k_shot": 5, "n_query": 4},
    },
    "ner": {
        "encoder": EncoderSettings(layers=(3,)),
        "data.sources": sources("wikigold", "wnut17", "broad_twitter", "uner_ewt", "scierc", "snips_slots"),
        "validation.sources": sources("crossner_politics", split="validation"),
        "data.targets": ("bc5cdr", "inlegalner", "sec_filings_fin"),
        "data.sampler": SamplerSettings(n_way=3, k_shot=(1, 2), n_query=4, options={"query": "rows"}),
        "measured": {"n_way": None, "k_shot": 5, "n_query": 5, "query": "rows"},
    },
    "question_answering": {
        "data.sources": sources("squadshifts_newwiki", "squadshifts_reddit", "squadshifts_amazon"),
        "validation.sources": sources("squad_v1", split="validation"),
        "data.targets": ("sleep_qa", "policy_qa", "tatqa_spans"),
        "data.sampler": SamplerSettings(k_shot=3, n_query=2),
        "measured": {"k_shot": 5, "n_query": 5},
    },
    "translation": {
        "data.sources": sources("tatoeba_de_en", "multi30k_de_en", "bcontrast_chat_de_en"),
        "validation.sources": sources("libreoffice_help_de_en", split="validation"),
        "data.targets": ("openehr_de_en", "mozilla_legal_de_en", "d365_finance_de_en"),
        "data.sampler": SamplerSettings(k_shot=5, n_query=5),
        "measured": {"k_shot": 5, "n_query": 10},
    },
}


def config_of(task: str, learner: str, options: argparse.Namespace, folder: Path) -> MetaTrainConfig:
    given = {key: value for key, value in SETTINGS[task].items() if key != "measured"}
    steps = max(1, options.episodes // 4)
    own = {
        "task": task,
        "learner": learner,
        "adapter": ADAPTER,
        "top_layers": None if task == "translation" else 2,
        "validation.n_episodes": options.val_episodes,
        "validation.every": max(1, steps // 3),
        "outer.lr": 1e-3,
        "outer.warmup": min(10, steps),
        "outer.meta_batch": 4,
        "outer.steps": steps,
        "run.save_every": max(1, steps // 3),
        "run.seed": options.seed,
        "run.output_dir": str(folder),
    }
    return MetaTrainConfig.from_dict(nested(own | given))


def target_episodes(task: str, name: str, pipeline: Pipeline, seed: int, n_episodes: int) -> Any:
    card, knobs = load_card(name), dict(SETTINGS[task]["measured"])
    data = pipeline.task.dataset(load_rows(name, "test"), name, group_column=card.group_column)
    kind = TASKS.get(task).sampler
    if knobs.get("n_way") is not None and len(data.label_names) < knobs["n_way"]:
        knobs["n_way"] = None
    sampler = SAMPLERS.get(kind)(data, n_episodes=n_episodes, seed=seed, **knobs)
    return [sampler.episode(i) for i in range(n_episodes)]


def adaptation(pipeline: Pipeline, episodes: Sequence[Episode]) -> tuple[float, int]:
    """Seconds and bytes of adapting to each of some episodes, with nothing of them computed before."""
    found = []
    for episode in episodes:
        began = time.process_time()
        model = pipeline.adapt(episode.support, episode.label_names)
        found.append((time.process_time() - began, model.adapted.bytes))
    seconds, sizes = zip(*found, strict=True)
    return statistics.median(seconds), statistics.median(sizes)


class Unadapted(Pipeline):
    """A pipeline that takes nothing from a support set."""

    __slots__ = ()

    def adapt(self, *_: Any, **__: Any) -> TaskModel:
        """The model as it is."""
        model = self.unadapted()
        assert model is not None
        return model


def cell(task: str, learner: str, options: argparse.Namespace) -> dict[str, Any]:
    """Meta-trains where that is possible, and measures on every target."""
    with tempfile.TemporaryDirectory() as scratch:
        frozen = learner == UNADAPTED
        config = config_of(task, "maml" if frozen else learner, options, Path(scratch) / "run")
        pipeline = build_pipeline(config, torch.device("cpu"))
        pipeline.learner.check_head()
        if frozen:
            pipeline = Unadapted(pipeline.task, pipeline.learner)
        trains = options.episodes > 0 and pipeline.learner.meta_learns and not frozen
        record: dict[str, Any] = {"meta_trained": trains}
        if record["meta_trained"]:
            began = time.perf_counter()
            result = meta_train(config)
            losses = [r["val_loss"] for r in result.history if "val_loss" in r]
            record |= {"val_loss": losses, "train_seconds": round(time.perf_counter() - began, 1)}
            pipeline = load(result.folder).pipeline
        record["parameters"] = sum(p.numel() for p in pipeline.learner.parameters())
        shown = []
        for domain, name in zip(DOMAINS, config.data.targets, strict=True):
            episodes = target_episodes(task, name, pipeline, options.seed, options.target_episodes)
            shown += episodes[:3]
            with pipeline.learner.encoder.cache_frozen_layers():
                report = evaluate_episodes(pipeline, episodes, seed=options.seed)
            record[domain] = {
                "data": name,
                "metric": report.metric,
                "mean": report.mean[report.metric],
                "ci95": report.ci95[report.metric],
                "per_episode": [e[report.metric] for e in report.per_episode],
                "pooled": report.pooled[report.metric],
                "n_episodes": report.n_episodes,
                "manifest": report.manifest_sha,
            }
        record["adapt_seconds"], record["bytes"] = adaptation(pipeline, shown)
    return record


def run(options: argparse.Namespace) -> None:
    keys = ("task", "learner", "episodes", "target_episodes", "seed")
    out: Path = options.out
    records = earlier_records(out)
    done = {tuple(r[k] for k in keys) for r in records}
    for task in options.tasks:
        for learner in options.learners or [*LEARNERS.names(), *[UNADAPTED] * (task == "translation")]:
            fixed = (task, learner, options.episodes, options.target_episodes, options.seed)
            if fixed in done:
                continue
            try:
                record = dict(zip(keys, fixed, strict=True)) | cell(task, learner, options)
            except FewShotError as refused:
                record = dict(zip(keys, fixed, strict=True)) | {"refused": str(refused)}
            append_record(out, record)
            scores = " ".join(f"{record[d]['mean']:.3f}" for d in DOMAINS if d in record)
            print(*fixed, scores or record["refused"], record.get("train_seconds"), flush=True)


def table(path: Path) -> str:
    """One table a task; behind a mean the half-width of its 95 % interval over the same episodes for all."""
    records = read_records(path)
    lines = [HEADER]
    for task in dict.fromkeys(r["task"] for r in records):
        mine = [r for r in records if r["task"] == task]
        shown = [r for r in mine if "refused" not in r]
        if not shown:
            continue
        first = shown[0]
        most = max(r["episodes"] for r in shown)
        budget = f"{most} meta-training episodes, {first['target_episodes']} target episodes"
        names = [f"{d} ({first[d]['data']})" for d in DOMAINS]
        lines += [
            f"## {task}",
            "",
            f"{first[DOMAINS[0]]['metric']}; 5-shot, {budget}, seed {first['seed']}.",
            "",
        ]
        baseline = UNADAPTED if task == "translation" else "linear_probe"
        lines.append(
            "| learner | "
            + " | ".join(names)
            + f" | against {baseline} | meta-validation loss | adapt, s | bytes a task |"
        )
        lines.append("|---" * (len(names) + 5) + "|")
        base = next((r for r in sorted(shown, key=_is_trained) if r["learner"] == baseline), None)
        for r in sorted(shown, key=lambda r: -sum(r[d]["mean"] for d in DOMAINS)):
            cells = [
                f"{r[d]['mean']:.3f}" + ("" if r[d]["ci95"] is None else f" ± {r[d]['ci95']:.3f}")
                for d in DOMAINS
            ]
            loss = f"{r['val_loss'][0]:.3f} -> {min(r['val_loss']):.3f}" if "val_loss" in r else "not trained"
            lines.append(
                f"| `{r['learner']}`{' before meta-training' if r['episodes'] == 0 else ''} | "
                + " | ".join(cells)
                + f" | {verdict(r, base)} | {loss} | {r['adapt_seconds']:.3f} | {r['bytes']:,.0f} |"
            )
        reasons = {r["learner"]: r["refused"].removeprefix(r["learner"]) for r in mine if "refused" in r}
        for reason in dict.fromkeys(reasons.values()):
            names = [f"`{learner}`" for learner, said in reasons.items() if said == reason]
            lines.append(f'\nRefused by {", ".join(names)}: "it{reason}"')
        left = [f"`{name}`" for name in LEARNERS.names() if name not in {r["learner"] for r in mine}]
        lines += [f"\nNot run: {', '.join(left)}." if left else "", ""]
    return "\n".join(lines)


def _is_trained(record: dict[str, Any]) -> bool:
    return bool(record["meta_trained"])


def verdict(record: dict[str, Any], base: dict[str, Any] | None) -> str:
    """Wins and losses over the domains; level where the paired difference's 95 % interval holds 0."""
    if base is None or base is record:
        return ""
    words = []
    for d in DOMAINS:
        pairs = zip(record[d]["per_episode"], base[d]["per_episode"], strict=True)
        mean, half = mean_and_interval([a - b for a, b in pairs])
        words.append("level" if half is None or abs(mean) <= half else "better" if mean > 0 else "worse")
    return ", ".join(words)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("what", choices=["run", "table"])
    parser.add_argument("--tasks", nargs="*", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--learners", nargs="*")
    parser.add_argument("--episodes", type=int, default=300, help="of meta-training; 0 for none")
    parser.add_argument("--val-episodes", type=int, default=20)
    parser.add_argument("--target-episodes", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(table(options.out)) if options.what == "table" else run(options)


if __name__ == "__main__":
    main()
