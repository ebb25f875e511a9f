"""What sits inside: the fields and networks of both papers."""
