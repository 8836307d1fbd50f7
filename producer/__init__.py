"""Owns the producer role: running a pipeline in worker processes and sending its datapoints to a broker."""
