"""Memories: keys and values, searched by nearness."""

from fewshot_nlp.memory.entries import Entry, Neighbour
from fewshot_nlp.memory.exact import Memory, search
from fewshot_nlp.memory.store import MemoryStore

__all__ = ["Entry", "Memory", "MemoryStore", "Neighbour", "search"]
