"""Building blocks without a word of the domain: signal, streams, backoff, SQL blocks, processes, connections.

What names a customer, an order or an entry belongs elsewhere.
"""
