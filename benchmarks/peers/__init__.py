"""The same job done by others: the loop that everybody starts with, Quix Streams, Bytewax and Pathway."""
