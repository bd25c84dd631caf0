"""What stands behind the last layers of a model and stays as it is: cut off in `prepare`, put back at export."""
