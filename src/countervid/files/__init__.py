"""Names, temporary names and locks of files: what every part that writes has in common."""
