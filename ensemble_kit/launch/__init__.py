"""Engines: they start jobs on this machine, on Ray or on Slurm.

A job is (run, member, fold). It locks its folder, resumes from its own checkpoint and ends by
writing its record. If an engine dies, finished jobs are not lost.
"""
