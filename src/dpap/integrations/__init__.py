"""Callbacks for the training loops of other frameworks, one module each; none is imported by `import dpap`."""
