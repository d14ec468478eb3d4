"""The router: sends each prompt to the level that costs it least quality, in time."""
