"""Loading an encoder: with a trial of packing, as for unknown families, and without, as for known ones.

    OMP_NUM_THREADS=1 python evaluation/speed/loading.py

BERT of the sizes of MiniLM (23M), base (110M) and large (335M) with random weights and the bundled tokenizer. Prints a
table of evaluation/results/speed.md.
"""

import tempfile
from unittest.mock import patch

import torch
from common import HEAD, interleaved, line, ratio
from transformers import AutoTokenizer, BertConfig, BertModel

from fewshot_nlp.backbone import Encoder, packing
from fewshot_nlp.backbone.bundled import bundled_folder

SIZES = {"23M": (384, 6, 12), "110M": (768, 12, 12), "335M": (1024, 24, 16)}
"""Width, layers and heads."""


def main() -> None:
    tokenizer = AutoTokenizer.from_pretrained(bundled_folder())
    for size, (width, layers, heads) in SIZES.items():
        torch.manual_seed(0)
        config = BertConfig(
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=4 * width,
        )
        with tempfile.TemporaryDirectory() as folder:
            BertModel(config).save_pretrained(folder)
            tokenizer.save_pretrained(folder)

            def load(name: str = folder) -> None:
                Encoder.from_pretrained(name)

            def load_and_try(name: str = folder) -> None:
                with patch.object(packing, "known_to_pack", lambda model: False):
                    Encoder.from_pretrained(name)

            seconds = interleaved({"with a trial": load_and_try, "known family": load})
        tried, known = seconds.values()
        print(f"\n### Loading a BERT of {size}\n\n{HEAD}")
        print("\n".join(line(name, values) for name, values in seconds.items()))
        print(f"\nwith a trial / known family = {ratio(tried, known):.2f}")


if __name__ == "__main__":
    main()
