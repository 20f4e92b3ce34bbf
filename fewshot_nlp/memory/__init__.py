"""Memories: keys with what they stand for, searched by nearness."""

from fewshot_nlp.memory.entries import Entry, Neighbour
from fewshot_nlp.memory.index import Index
from fewshot_nlp.memory.store import MemoryStore
from fewshot_nlp.memory.vectors import VectorStore

__all__ = ["Entry", "Index", "MemoryStore", "Neighbour", "VectorStore"]
