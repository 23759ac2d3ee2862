"""One reader of the world's files: NetCDF, Zarr, HDF5, arrays, times and grids."""
