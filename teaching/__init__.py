"""The methods of this project written out in NumPy, to be read."""
