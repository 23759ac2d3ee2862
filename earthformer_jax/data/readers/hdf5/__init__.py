"""Fields in HDF5 files that are not NetCDF: contents, sequences, radar conventions."""
