"""Backbones: Hugging Face models seen as extractors of one feature vector a slot."""

from fewshot_nlp.backbone.encoder import Encoder

__all__ = ["Encoder"]
