"""The small package the notebooks share; see README.md for the map of its modules."""
