"""What each level of folders means."""
