"""Plots as matplotlib figures.

Functions return figures and change no global state.
"""
