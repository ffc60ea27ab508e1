"""Archives: files into which the evidence of jobs moves that ended long ago, and from which an audit takes it back."""
