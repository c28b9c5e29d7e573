"""What a test holds in its hands: machines from keywords, what they leave, what differs, and what is told when a test fails."""
