"""Folk music in ABC notation."""
