"""Running the model repositories: the embedded server and its backends."""
