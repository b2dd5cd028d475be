"""A stand-in for BALROG with the interface that the worker uses of it; its game is a coin that the model calls."""
