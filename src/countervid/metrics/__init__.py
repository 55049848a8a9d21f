"""Measures of an edit, one file a family; `base` says what a metric is and finds them all. Import from the modules."""
