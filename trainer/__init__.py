"""One run of one model: waits for its stream, reads it, trains, reports, uploads, and ends."""
