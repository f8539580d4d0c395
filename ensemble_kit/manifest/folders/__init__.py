"""Recognises what each level of folders means."""
