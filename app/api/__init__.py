"""The API, one file per noun. Handlers translate; what happens is in the store."""
