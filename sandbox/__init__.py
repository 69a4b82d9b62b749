"""Runs other people's code in a worker process: starts it, limits it, talks frames with it, kills it."""
