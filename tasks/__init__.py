"""How a stage becomes a cached, versioned, tracked and registered task."""
