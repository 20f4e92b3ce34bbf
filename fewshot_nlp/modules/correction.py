"""A linear map that adds nothing before training, and little by each step of it."""

import torch.nn.functional as F
from torch import Tensor, nn


class Correction(nn.Linear):
    """A linear map with zero weights at first, whose product is divided.

    Adam moves every weight by about its rate, so that one step changes the outputs by the rate times the number of
    inputs: at 384 inputs, a few steps outweigh what was to be corrected, and what is learned from the first tasks does
    not hold for others. A vector is divided by the root of the number of inputs; a scalar, which steers all of a
    memory's reads at once, by the number itself (compare the output multipliers
    of Yang et al. 2021, Tensor Programs V).
    """

    def reset_parameters(self) -> None:
        """Weights of zero; the bias, where there is one, too."""
        nn.init.zeros_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """The map's outputs."""
        divisor = self.in_features if self.out_features == 1 else self.in_features**0.5
        return F.linear(input, self.weight / divisor, self.bias)
