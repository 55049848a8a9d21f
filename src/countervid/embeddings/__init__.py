"""Pictures and sentences in one space."""
