"""A run: from clip and intervention to a folder with the counterfactual, its comparison and its report."""
