"""From image files to batches on the device: decoding, tiles, augmentation.

Does no work at import.
"""
