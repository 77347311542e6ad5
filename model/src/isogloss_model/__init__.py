"""The released model of isogloss as data: `isogloss.load()` finds it in the folder `model` beside this file."""
