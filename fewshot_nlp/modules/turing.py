"""A memory with content-based reads by a controller; writes go to the least recently used rows.

Papers: Graves, Wayne, Danihelka 2014, Neural Turing Machines (content addressing, equations 5 and 6); Santoro et al.
2016, Meta-Learning with Memory-Augmented Neural Networks (equations 2 to 8).
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from fewshot_nlp.modules.correction import Correction

Controller = Literal["lstm", "feed_forward"]
GATE = -4.0
"""Start of the gate between the rows read last and the least used one: 2 % go to the former."""


def content_weights(
    keys: Float[Tensor, "n d"],
    memory: Float[Tensor, "m d"],
    sharpness: Tensor,
    written: Bool[Tensor, " m"],
) -> Float[Tensor, "n m"]:
    """Softmax of cosine similarities times sharpness over the written rows (equations 2 and 3)."""
    similarity = F.normalize(keys, dim=-1) @ F.normalize(memory, dim=-1).T
    return (similarity * sharpness).masked_fill(~written, -torch.inf).softmax(dim=-1)


def least_used(usage: Float[Tensor, " m"]) -> Float[Tensor, " m"]:
    """1 at the row of least usage, the first of several, else 0 (equation 6 for one read head)."""
    return F.one_hot(usage.argmin(), len(usage)).to(usage)


def write_weights(gate: Tensor, read: Float[Tensor, " m"], least: Float[Tensor, " m"]) -> Float[Tensor, " m"]:
    """Write weights: the gate's share on the rows read before, the rest on the least used row (equation 7)."""
    share = torch.sigmoid(gate)
    return share * read + (1 - share) * least


def usage_after(
    usage: Float[Tensor, " m"], read: Float[Tensor, " m"], write: Float[Tensor, " m"], decay: float
) -> Float[Tensor, " m"]:
    """Usage after a step: ``decay`` times the usage before, plus read and write weights (equation 5)."""
    return decay * usage + read + write


def written_memory(
    memory: Float[Tensor, "m d"],
    weights: Float[Tensor, " m"],
    least: Float[Tensor, " m"],
    row: Float[Tensor, " d"],
) -> Float[Tensor, "m d"]:
    """Clears the least used row, then adds the new row times the write weights (equation 8)."""
    return memory * (1 - least)[:, None] + weights[:, None] * row


class TuringMemory(nn.Module):
    """Controller and addressing. A row of the memory is a key and a label value.

    The key of a slot is its vector plus a term from the controller, which is zero before training: the memory is
    then a soft nearest neighbour. No parameter's shape depends on the number of labels.

    Args:
        dimension: of a slot's vector.
        code: dimension of the label codes that are input of the controller.
        hidden: units of the controller.
        controller: "lstm", or "feed_forward", which has no state beside the memory.
        sharpness: of the reads; initial value.
        decay: factor of the usage in each step, in [0, 1].
    """

    def __init__(
        self,
        dimension: int,
        code: int,
        hidden: int,
        controller: Controller = "lstm",
        sharpness: float = 20.0,
        decay: float = 0.95,
    ) -> None:
        super().__init__()
        inputs = 2 * dimension + code
        self.controller = nn.LSTMCell(inputs, hidden) if controller == "lstm" else nn.Linear(inputs, hidden)
        self.metric = Correction(dimension, dimension, bias=False)
        self.key = Correction(hidden, dimension, bias=False)
        self.sharpen = Correction(hidden, 1)
        self.gate = Correction(hidden, 1)
        self.decay, self.hidden = decay, hidden
        nn.init.constant_(self.sharpen.bias, torch.tensor(sharpness).log().item())
        nn.init.constant_(self.gate.bias, GATE)

    def empty(self, n_rows: int, n_values: int, code: int) -> dict[str, Tensor]:
        """The state before the first slot: nothing is written, read or used."""
        like = self.metric.weight
        dimension = like.shape[1]
        shapes = {
            "keys": (n_rows, dimension),
            "values": (n_rows, n_values),
            "usage": (n_rows,),
            "write": (n_rows,),
            "hidden": (self.hidden,),
            "cell": (self.hidden,),
            "read": (dimension,),
            "code": (code,),
        }
        state = {name: like.new_zeros(shape) for name, shape in shapes.items()}
        return state | {"written": torch.zeros(n_rows, dtype=torch.bool, device=like.device)}

    def read(
        self, state: dict[str, Tensor], slots: Float[Tensor, "n d"]
    ) -> tuple[Float[Tensor, "n m"], dict[str, Tensor]]:
        """Reads for each slot, independently of the other slots; nothing is written.

        Args:
            state: of the memory and the controller.
            slots: vectors of the slots, with norm 1.

        Returns:
            Read weights, and the slots' keys and the controller's new states.
        """
        n = len(slots)
        told = torch.cat([state["code"], state["read"]]).expand(n, -1)
        inputs = torch.cat([slots, told], dim=1)
        cell = state["cell"].expand(n, -1)
        if isinstance(self.controller, nn.LSTMCell):
            hidden, cell = self.controller(
                inputs, (state["hidden"].expand(n, -1).contiguous(), cell.contiguous())
            )
        else:
            hidden = torch.tanh(self.controller(inputs))
        keys = slots + self.metric(slots) + self.key(hidden)
        if bool(state["written"].any()):
            weights = content_weights(keys, state["keys"], self.sharpen(hidden).exp(), state["written"])
        else:
            weights = slots.new_zeros(n, len(state["usage"]))
        return weights, {"key": keys, "hidden": hidden, "cell": cell}

    def write(
        self,
        state: dict[str, Tensor],
        read: Float[Tensor, " m"],
        new: dict[str, Tensor],
        value: Float[Tensor, " v"],
        code: Float[Tensor, " c"],
    ) -> dict[str, Tensor]:
        """The state after the next step's write: the label of the last read slot arrives, and is written with its key.

        With that slot's step t - 1 this is step t: its write weights come from the read weights and the usage of
        t - 1, and enter the usage of t.

        Args:
            state: before the write.
            read: the slot's read weights.
            new: key and controller states of the slot, from `read`.
            value: the label as the memory stores it.
            code: the label's code, which the controller gets with the next slot.
        """
        usage = usage_after(state["usage"], read, state["write"], self.decay)
        least = least_used(usage.detach())
        write = write_weights(self.gate(new["hidden"])[0], read, least)
        return {
            "keys": written_memory(state["keys"], write, least, new["key"]),
            "values": written_memory(state["values"], write, least, value),
            "usage": usage,
            "write": write,
            "hidden": new["hidden"],
            "cell": new["cell"],
            "read": read @ state["keys"],
            "code": code,
            "written": state["written"] | (least > 0),
        }

    def run(
        self,
        slots: Float[Tensor, "t d"],
        values: Float[Tensor, "t v"],
        codes: Float[Tensor, "t c"],
        n_rows: int,
    ) -> tuple[dict[str, Tensor], Float[Tensor, "t v"]]:
        """Reads and writes slots one after the other; each is input together with the label of the one before.

        Args:
            slots: their vectors, with norm 1.
            values: their labels, as the memory stores them.
            codes: their labels' codes, for the controller.
            n_rows: rows of the memory.

        Returns:
            The final state, and the values read for each slot before its label was given.
        """
        state = self.empty(n_rows, values.shape[1], codes.shape[1])
        found = []
        for slot, value, code in zip(slots, values, codes, strict=True):
            weights, new = self.read(state, slot[None])
            found.append(weights[0] @ state["values"])
            state = self.write(state, weights[0], {n: t[0] for n, t in new.items()}, value, code)
        return state, torch.stack(found) if found else values[:0]
