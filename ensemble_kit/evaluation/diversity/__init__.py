"""Members: how they differ, what each adds, what each costs."""
