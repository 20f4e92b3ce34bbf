"""Sinusoidal positions are fixed by formula: no training moves them."""

import pytest
from transformers import DistilBertConfig, DistilBertModel

from fewshot_nlp import FewShotTranslator
from fewshot_nlp.backbone import Encoder
from fewshot_nlp.modules.start import fast_parameters


class TestFixedPositions:
    def test_of_marian(self, tiny_translator_folder):
        backbone = FewShotTranslator.from_pretrained(tiny_translator_folder).pipeline.learner.encoder
        left = set(backbone.parameters()) - set(backbone.moving_parameters())
        assert left == {f"model.{side}.embed_positions.weight" for side in ("encoder", "decoder")}
        assert len(fast_parameters(backbone, "all")) == len(backbone.moving_parameters())

    @pytest.mark.parametrize("fixed", [True, False])
    def test_of_distilbert(self, tiny_encoder_folder, fixed):
        backbone = Encoder.from_pretrained(tiny_encoder_folder)
        assert backbone.moving_parameters().keys() == backbone.parameters().keys()
        config = DistilBertConfig(
            vocab_size=9, dim=8, n_layers=1, n_heads=1, hidden_dim=8, sinusoidal_pos_embds=fixed
        )
        backbone.model = DistilBertModel(config)
        left = set(backbone.parameters()) - set(backbone.moving_parameters())
        assert left == ({"embeddings.position_embeddings.weight"} if fixed else set())
