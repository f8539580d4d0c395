"""The phantom: synthetic HER2 tissue, for trying everything without real patients.

All images are synthetic. Results on them say nothing about any disease.
"""
