"""Evaluation of stored runs."""
