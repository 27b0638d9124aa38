"""What the families on images of digits share."""
