"""The store: measurements in a database, written as they are taken."""
