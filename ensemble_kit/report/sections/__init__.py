"""The sections of the report: each has sentences, figures, and collapsed tables."""
