"""Latency tables: every distinct block of a search space with its predicted time, made once and used offline."""
