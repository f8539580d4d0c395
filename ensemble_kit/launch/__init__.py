"""Engines: they start jobs, here or elsewhere. No array crosses their wires.

A job is (run, member, fold); it claims its folder, resumes from its own checkpoint and ends by
writing its record, so an engine that dies costs nothing finished.
"""
