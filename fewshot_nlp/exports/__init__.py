"""Adapted models in the formats of other tools: transformers, PEFT, sentence-transformers, ONNX, spaCy."""

from fewshot_nlp.exports.formats import FORMATS, export
from fewshot_nlp.exports.onnx_model import OnnxModel

__all__ = ["FORMATS", "OnnxModel", "export"]
