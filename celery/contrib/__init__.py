"""Things for users that the library itself does not need."""
