"""inkfill in scikit-learn, dask and xarray."""
