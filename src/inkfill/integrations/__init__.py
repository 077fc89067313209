"""inkfill in scikit-learn and dask."""
