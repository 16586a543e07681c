"""Each claim of the README as a script with its committed result file."""
