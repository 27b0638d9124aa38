"""What clients meet: paths, access, requests, the page, and the answers of the engines passed on."""
