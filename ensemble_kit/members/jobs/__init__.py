"""One job: a member on a fold, with its files."""
