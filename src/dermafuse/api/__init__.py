"""What ``import dermafuse as df`` offers: the verbs of the command line as functions, and objects for their results.

`dermafuse.__init__` is the map of the names. The commands call the same functions.
"""
