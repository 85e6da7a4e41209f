"""Networks of other packages, one file a package: each lists functions that build a small one with random weights.

A file has `PACKAGE`, what it imports, and `NETWORKS`: name -> function without arguments that returns the network and
what its forward takes, a tuple or a dictionary. Nothing is downloaded; images are small, batches two samples.
"""
