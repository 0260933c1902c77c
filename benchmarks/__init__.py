"""Benchmarks: how fast the pipeline is, how much memory it takes, how well it keeps the limits.

One file a question. All share the `histories` and the processes of `bench`, answer with the figures of
`figures`, and are run by `__main__`. Processor time is compared with a `calibration` and with the committed
`ratios`. Only Linux tells the peak memory of another process.

Each gate was seen to fail: its file says what was done to it. A setting in the environment, such as
KIVA_STREAM__STATE__COMMIT_INTERVAL_MS=1000, is kept by the measured runs, and `--slow` slows stages down, so
that this can be done again.
"""
