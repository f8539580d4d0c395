"""Attribution maps of members and ensembles, their faithfulness, and their files."""
