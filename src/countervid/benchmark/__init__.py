"""Many edits, measured: a grid of jobs that survives anything, and the tables and pages made of its results."""
