"""From image files to batches on the device: decoding, tiles, augmentation."""
