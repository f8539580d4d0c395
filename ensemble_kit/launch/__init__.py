"""Engines: they start jobs on this machine, on Ray or on Slurm.

A job is (run, member, fold). It locks its folder, resumes from its own checkpoint and ends by
writing its record. So finished jobs are kept if an engine dies.
"""
