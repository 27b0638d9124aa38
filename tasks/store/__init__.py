"""What is kept on disk: artifacts, records, dataset versions, and how they are told apart."""
