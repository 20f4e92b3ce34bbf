"""Memories: keys and values, searched by nearness."""

from fewshot_nlp.memory.exact import Memory, search

__all__ = ["Memory", "search"]
