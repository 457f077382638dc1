"""What is measured and written while training: one Trainer extension a file.

What an extension keeps from one iteration to the next belongs in its `serialize`: the snapshots
then hold it, and a resumed run goes on exactly. Numbers, text, arrays and None can be saved.
"""
