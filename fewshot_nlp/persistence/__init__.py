"""Model folders: writing, reading, their cards, and the Hub."""
