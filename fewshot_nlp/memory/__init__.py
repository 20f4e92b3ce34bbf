"""Memories: keys and values, searched by nearness."""

from fewshot_nlp.memory.exact import Memory, search
from fewshot_nlp.memory.store import Entry, MemoryStore, Neighbour

__all__ = ["Entry", "Memory", "MemoryStore", "Neighbour", "search"]
