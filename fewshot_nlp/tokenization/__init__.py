"""Texts to token windows that keep the place of every word."""
