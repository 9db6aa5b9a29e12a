"""The space `designed`: random networks that together cover the shapes kernels come in."""
