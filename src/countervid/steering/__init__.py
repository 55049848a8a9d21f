"""Steering: edit, let a critic look, write the next target, and keep the best."""
