"""A linear map that is zero before training and changes slowly in it."""

import torch.nn.functional as F
from torch import Tensor, nn


class Correction(nn.Linear):
    """A linear map with zero initial weights, whose output is divided by a function of its width.

    Adam changes every weight by about its rate, so one step changes an output by up to the rate times the number of
    inputs. With 384 inputs a few steps outweigh the features that are to be corrected, and overfit to the first tasks.
    A vector output is divided by the square root of the number of inputs; a scalar output, which affects all reads of
    a memory at once, by the number itself (compare the output multipliers of Yang et al. 2021, Tensor Programs V).
    """

    def reset_parameters(self) -> None:
        """Sets weights and bias, if any, to zero."""
        nn.init.zeros_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """Scaled outputs plus bias."""
        divisor = self.in_features if self.out_features == 1 else self.in_features**0.5
        return F.linear(input, self.weight / divisor, self.bias)
