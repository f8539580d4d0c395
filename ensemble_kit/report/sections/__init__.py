"""The sections of the report: each a sentence, a figure, and tables that are folded away."""
