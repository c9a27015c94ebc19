"""Scripts behind the data, the models, the notebooks and the measurements; run as modules."""
