"""What a Python program does to its arrays, models and code; each part is optional and costs nothing when off."""
