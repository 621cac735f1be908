"""The store's schema, grown one numbered SQL file at a time.

A file that was released is never edited: the next number changes what it made. Statements end
with a semicolon at the end of a line, in SQL that both SQLite and PostgreSQL take.
`server/store_schema.py` applies them and declares the tables as they stand after the last one.
"""
