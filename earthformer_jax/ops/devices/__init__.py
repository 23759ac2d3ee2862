"""What functions of arrays need to know of the devices that arrays lie on."""
