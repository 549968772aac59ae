"""What relay relies on in other packages although they do not promise it: one file for each package."""
