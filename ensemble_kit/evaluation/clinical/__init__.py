"""Clinical use of a positive class: net benefit, calibration, predictive values, subgroups."""
