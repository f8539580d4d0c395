"""The phantom: synthetic HER2 tissue, for trying everything without real patients.

Synthetic throughout: says nothing about any disease, and must never be scored as if it did.
"""
