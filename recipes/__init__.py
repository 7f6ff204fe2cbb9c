"""Training recipes: the only place that imports lightning. `python -m recipes.run NAME`."""
