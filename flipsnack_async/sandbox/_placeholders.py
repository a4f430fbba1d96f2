"""
Names and words that no stored page of the vendor's shows.

He says that a collection has a thumbnail's address, items and a state, and not
what they are called. Everything here is made up, to be corrected in one place.
"""

THUMB = "thumb"
ITEMS = "items"
ITEM_HASH = "itemHash"
ITEM_STATE = "status"

# Processing, complete, failed: the words of his help pages, whose case is not certain either.
STATES = ("processing", "complete", "failed")

# Addresses that lead nowhere, so that no made-up collection ever asks a real host for anything.
THUMB_URL = "https://covers.sandbox.invalid/{account}/{collection}/{item}/page_1/small"
PLAYER_URL = "https://player.sandbox.invalid"

LEAD_SAMPLE = {"Full name": "John Smith", "Email": "john@example.com", "Company": "Example Ltd"}
