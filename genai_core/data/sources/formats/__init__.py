"""What files hold as bytes, given as rows: JSON, CSV, Parquet, Arrow, or one document; plain or compressed."""
