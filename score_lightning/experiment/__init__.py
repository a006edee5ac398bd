"""From a resolved configuration to the objects of a run, and the run itself."""
