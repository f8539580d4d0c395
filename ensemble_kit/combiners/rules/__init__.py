"""Combiners without a fit."""
