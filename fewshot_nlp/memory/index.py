"""Nearest-neighbour search: exact, as one matrix product a chunk of queries, or by cells of faiss."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from fewshot_nlp.errors import FewShotError
from fewshot_nlp.memory.growing import GrowingRows

CHUNK = 1024
_prepared: Any = WeakIdKeyDictionary()


class Index:
    """Keys made ready for searching; an exact search can be differentiated.

    Args:
        keys: shape [n, d], of any floating type; searched in float32, or float64 where they are.
        metric: "euclidean" (squared distances) or "cosine".
        backend: "exact", or "faiss": an inverted file, which looks only at the cells nearest to a query.
        cells: of faiss, looked at for a query, out of about 4 sqrt(n).

    Raises:
        FewShotError: faiss is asked for and not installed.
    """

    def __init__(
        self, keys: Float[Tensor, "n d"], metric: str, backend: str = "exact", cells: int = 16
    ) -> None:
        self.metric = metric
        vectors = self._ready(keys.to(torch.promote_types(keys.dtype, torch.float32)))
        self._vectors, self._squares = GrowingRows(vectors), GrowingRows(vectors.square().sum(dim=1))
        self._cells, self._trained_on = cells, len(vectors)
        self.faiss: Any = _faiss_index(vectors.detach().cpu(), cells) if backend == "faiss" else None

    @property
    def vectors(self) -> Float[Tensor, "n d"]:
        """The keys as they are searched: with the cosine of length 1."""
        return self._vectors.rows

    def add(self, keys: Float[Tensor, "m d"]) -> None:
        """Appends keys on the CPU, without a gradient. The cells of faiss are made anew when the keys have doubled."""
        vectors = self._ready(keys.to(self.vectors.dtype))
        self._vectors.append(vectors)
        self._squares.append(vectors.square().sum(dim=1))
        if self.faiss is not None and len(self.vectors) >= 2 * self._trained_on:
            self.faiss, self._trained_on = _faiss_index(self.vectors, self._cells), len(self.vectors)
        elif self.faiss is not None:
            self.faiss.add(vectors.numpy())

    def distances(self, queries: Float[Tensor, "q d"]) -> Float[Tensor, "q n"]:
        """Of all queries to all keys."""
        queries = self._ready(queries.to(self.vectors.dtype))
        if self.metric == "cosine":
            return 1 - queries @ self.vectors.T
        squares = queries.square().sum(dim=1, keepdim=True) + self._squares.rows
        return (squares - 2 * queries @ self.vectors.T).clamp_min(0)

    def search(
        self, queries: Float[Tensor, "q d"], k: int, chunk: int = CHUNK
    ) -> tuple[Float[Tensor, "q k"], Int[Tensor, "q k"]]:
        """The k nearest keys of each query, nearest first: distances and key numbers.

        Fewer where there are fewer keys. Where faiss finds fewer in its cells, the last ones are at infinite distance.

        Args:
            queries: what to look for.
            k: how many; at least 1.
            chunk: queries at once, which bounds memory to chunk x n numbers.
        """
        k = min(k, len(self.vectors))
        if self.faiss is not None:
            return self._search_cells(queries, k)
        found = [self.distances(part).topk(k, dim=1, largest=False) for part in torch.split(queries, chunk)]
        if not found:
            return queries.new_zeros(0, k), torch.zeros(0, k, dtype=torch.long)
        return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])

    def _search_cells(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        ready = self._ready(queries.float()).detach().cpu().numpy()
        squares, numbers = (
            torch.from_numpy(found).to(queries.device) for found in self.faiss.search(ready, k)
        )
        if self.metric == "cosine":  # half the squared distance of unit vectors
            squares = squares / 2
        return torch.where(numbers < 0, torch.inf, squares), numbers.clamp_min(0)

    def _ready(self, vectors: Tensor) -> Tensor:
        return F.normalize(vectors, dim=-1) if self.metric == "cosine" else vectors


def distances(queries: Float[Tensor, "n d"], keys: Float[Tensor, "m d"], metric: str) -> Float[Tensor, "n m"]:
    """Squared Euclidean or cosine distances of all pairs."""
    return Index(keys, metric).distances(queries)


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
