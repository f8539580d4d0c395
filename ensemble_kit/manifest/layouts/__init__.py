"""One data set layout, one reader."""
