"""Train an Isolation Forest and write it with its card."""
