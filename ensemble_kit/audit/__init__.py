"""The leakage and quality linter: what in the data would make a result wrong.

Does no work at import.
"""
