"""Figures as matplotlib objects: computed here, written elsewhere; no global state is touched."""
