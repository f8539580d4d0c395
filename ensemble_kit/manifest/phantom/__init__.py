"""The phantom: synthetic HER2 tissue, to try the toolkit without real patients.

All images are synthetic. Results on them say nothing about any disease.
"""
