"""The front end: from the text of a spec to a graph."""
