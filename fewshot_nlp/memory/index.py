"""Search over many keys: prepared once, exact by a matrix product or by cells of faiss."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from fewshot_nlp.errors import FewShotError

CHUNK = 1024
_prepared: Any = WeakIdKeyDictionary()


class Index:
    """Keys made ready for searching.

    Args:
        keys: shape [n, d], of any floating type; searched in float32.
        metric: "euclidean" (squared distances) or "cosine".
        backend: "exact", or "faiss": an inverted file, which looks only at the cells nearest to a query.
        cells: of faiss, looked at for a query, out of about 4 sqrt(n).

    Raises:
        FewShotError: faiss is asked for and not installed.
    """

    def __init__(
        self, keys: Float[Tensor, "n d"], metric: str, backend: str = "exact", cells: int = 16
    ) -> None:
        self.metric, self.n = metric, len(keys)
        vectors = keys.float()
        if metric == "cosine":
            vectors = F.normalize(vectors, dim=-1)
        self.faiss: Any = None
        if backend == "faiss":
            self.faiss = _faiss_index(vectors.detach().cpu(), cells)
        else:
            self.transposed = vectors.T.contiguous()
            self.half_squares = vectors.square().sum(dim=1) / 2

    def search(
        self, queries: Float[Tensor, "q d"], k: int
    ) -> tuple[Float[Tensor, "q k"], Int[Tensor, "q k"]]:
        """The k nearest keys of each query, nearest first: distances and key numbers.

        Fewer where there are fewer keys. Where faiss finds fewer in its cells, the last ones are at infinite distance.
        """
        queries = queries.float()
        if self.metric == "cosine":
            queries = F.normalize(queries, dim=-1)
        k = min(k, self.n)
        if self.faiss is not None:
            found, numbers = self.faiss.search(queries.detach().cpu().numpy(), k)
            distance = torch.from_numpy(found).to(queries.device)
            number = torch.from_numpy(numbers).to(queries.device)
            distance = torch.where(number < 0, torch.inf, distance)
            return self._scaled(distance), number.clamp_min(0)
        values, indices = [], []
        for part in torch.split(queries, CHUNK):
            near = torch.addmm(-self.half_squares, part, self.transposed).topk(k, dim=1)
            squares = part.square().sum(dim=1, keepdim=True)
            values.append(self._scaled((squares - 2 * near.values).clamp_min(0)))
            indices.append(near.indices)
        if not values:
            return queries.new_zeros(0, k), torch.zeros(0, k, dtype=torch.long)
        return torch.cat(values), torch.cat(indices)

    def _scaled(self, squares: Tensor) -> Tensor:
        """Cosine distance is half the squared distance of unit vectors."""
        return squares / 2 if self.metric == "cosine" else squares


def index_of(keys: Float[Tensor, "n d"], metric: str, backend: str = "exact") -> Index:
    """The index of some keys, made at the first call and kept as long as they are."""
    if keys.requires_grad:  # a graph that is used once
        return Index(keys, metric, backend)
    made: dict[tuple[str, str], Index] = _prepared.setdefault(keys, {})
    if (metric, backend) not in made:
        made[metric, backend] = Index(keys, metric, backend)
    return made[metric, backend]


def _faiss_index(vectors: Float[Tensor, "n d"], cells: int) -> Any:
    try:
        import faiss
    except ImportError as error:
        raise FewShotError("search='faiss' needs faiss: pip install 'fewshot-nlp[faiss]'.") from error
    n, d = vectors.shape
    data = vectors.numpy()
    if n < 1000:  # too few for cells
        flat = faiss.IndexFlatL2(d)
        flat.add(data)
        return flat
    n_cells = int(4 * n**0.5)
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(d), d, n_cells)
    index.cp.niter, index.cp.seed, index.cp.min_points_per_centroid = 8, 1234, 1
    index.train(data)
    index.add(data)
    index.nprobe = cells
    return index
