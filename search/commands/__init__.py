"""The commands of `python -m search`: a module for each group."""
