"""Parts of models: losses, heads and layers of the core in the framework's places."""
