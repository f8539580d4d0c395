"""Recognises the meaning of each level of folders."""
