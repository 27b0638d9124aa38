"""What people look at: reports, comparisons, tables, pages."""
