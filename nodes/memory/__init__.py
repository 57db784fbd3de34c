"""Steps that have to do with memory. They know its port alone."""
