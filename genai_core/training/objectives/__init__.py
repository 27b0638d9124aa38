"""What a training optimises: one objective a file."""
