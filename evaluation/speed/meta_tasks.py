"""Several tasks in one pass beside one after the other: forward and backward of an inner step, one thread.

    OMP_NUM_THREADS=1 FEWSHOT_NLP_DATA=... python evaluation/speed/meta_tasks.py

Supports of BANKING77, 5-way; LoRA in the top 2 layers. The joint pass has the same fast weights for all tasks, so its
gain is the most that inner loops of several tasks in one call could have: fast weights of each task's own cost more.
"""

import torch
from common import HEAD, interleaved, line, ratio

from fewshot_nlp.backbone import Encoder
from fewshot_nlp.backbone.adapters import default_adapter
from fewshot_nlp.sampling import NWayKShot
from fewshot_nlp.sources import load_rows
from fewshot_nlp.tasks import TASKS

N_TASKS = 4


def main() -> None:
    torch.set_num_threads(1)
    encoder = Encoder.from_pretrained()
    encoder.attach(default_adapter(), top_layers=2)
    task = TASKS.get("classification")()
    data = task.dataset(load_rows("banking77", "train"), "banking77")
    weights = {name: p.detach().clone().requires_grad_() for name, p in encoder.adapter.items()}

    def step(texts: list[object]) -> None:
        batch = task.collate(texts, ["a"], encoder.tokenizer, with_targets=False)
        loss = encoder.features(batch, weights, double_backward=True).square().sum()
        torch.autograd.grad(loss, list(weights.values()), create_graph=True)

    for k_shot in (1, 5):
        sampler = NWayKShot(data, 5, k_shot, 1)
        tasks = [[e.query for e in sampler.episode(i).support] for i in range(N_TASKS)]
        found = interleaved(
            {
                f"{N_TASKS} tasks, one after the other": lambda t=tasks: [step(texts) for texts in t],
                f"{N_TASKS} tasks in one pass": lambda t=tasks: step([text for texts in t for text in texts]),
            }
        )
        alone, joint = found.values()
        print(f"{k_shot}-shot\n\n{HEAD}", *(line(n, v) for n, v in found.items()), sep="\n")
        print(f"\none after the other / in one pass = {ratio(alone, joint):.2f}\n", flush=True)


if __name__ == "__main__":
    main()
