"""What runs have to do with customers: sessions, journeys, and people who take over."""
