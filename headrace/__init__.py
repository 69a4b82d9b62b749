"""The base of every Headrace service: contracts, errors, servers, clients, settings, logs, processes."""

__version__ = "0.1.0"
