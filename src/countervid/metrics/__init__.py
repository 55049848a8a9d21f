"""Measures of an edit: identity over time, picture quality, distance to the truth.

Pure functions of tensors; none loads a model except the examiner. Import from the modules.
"""
