"""Nouns: what is said, promised, kept and counted. They import values and each other alone."""
