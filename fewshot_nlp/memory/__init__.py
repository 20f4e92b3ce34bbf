"""Memories: keys with what they stand for, searched by nearness."""

from fewshot_nlp.memory.entries import Entry, Neighbour
from fewshot_nlp.memory.index import Index
from fewshot_nlp.memory.store import MemoryStore

__all__ = ["Entry", "Index", "MemoryStore", "Neighbour"]
