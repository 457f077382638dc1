"""Sweeps on a Dask cluster: `--cluster`.

`client` sends each run to a worker and takes its outcome. `task` is all that a worker itself runs:
it starts a child process (`child`) for each run. `packing` makes bytes of a result folder, for
workers that do not share the client's file system.
"""
