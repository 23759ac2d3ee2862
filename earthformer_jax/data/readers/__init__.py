"""Readers of fields in NetCDF, Zarr, HDF5 and .npy files, with times and grids."""
