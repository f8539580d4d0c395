"""Where members and ensembles look: maps, their faithfulness, and what they are written to."""
