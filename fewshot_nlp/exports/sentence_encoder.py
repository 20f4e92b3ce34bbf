"""The tuned encoder as a model of sentence-transformers, whose embeddings are those of `FewShotModel.encode`."""

import json
from pathlib import Path

from fewshot_nlp.backbone import Encoder
from fewshot_nlp.backbone.sentence_files import MODES
from fewshot_nlp.exports.merging import merged
from fewshot_nlp.modules.state import fast_weights
from fewshot_nlp.pipeline import TaskModel

MODULES = "sentence_transformers.models."


def write_sentence_transformer(model: TaskModel, folder: Path) -> None:
    """Writes the merged encoder, its tokenizer and the files that tell of pooling and window; the head stays out."""
    encoder = model.pipeline.learner.encoder
    assert isinstance(encoder, Encoder)
    plain = merged(encoder, fast_weights(model.adapted.state), encoder.layers[-1])
    plain.save_pretrained(folder)
    encoder.tokenizer.tokenizer.save_pretrained(folder)
    mode = next(theirs for theirs, ours in MODES.items() if ours == encoder.pooling)
    pooling = {"word_embedding_dimension": int(plain.config.hidden_size), "pooling_mode": mode}
    (folder / "1_Pooling").mkdir()
    files = {
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": MODULES + "Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": MODULES + "Pooling"},
        ],
        "sentence_bert_config.json": {"max_seq_length": encoder.tokenizer.max_length, "do_lower_case": False},
        "config_sentence_transformers.json": {"prompts": {}, "similarity_fn_name": "cosine"},
        "1_Pooling/config.json": pooling,
    }
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value, indent=2), encoding="utf-8")
