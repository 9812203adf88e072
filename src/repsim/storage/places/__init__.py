"""Where a store lies: a folder on disk, or an address that Zarr reaches."""
