"""What is measured and written while training: one Trainer extension a file."""
