"""Meta-training: the only outer loop, for every task and every learner."""

from fewshot_nlp.training.callbacks import Callback
from fewshot_nlp.training.config import MetaTrainConfig, parse_config
from fewshot_nlp.training.meta_train import MetaTrainResult, meta_train

__all__ = ["Callback", "MetaTrainConfig", "MetaTrainResult", "meta_train", "parse_config"]
