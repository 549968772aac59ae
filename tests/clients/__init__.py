"""Real clients other than curl. `programs` has one small program for each language, which downloads one URL."""
