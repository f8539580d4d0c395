"""Thresholds, referral and prediction sets."""
