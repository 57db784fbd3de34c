"""What was asked, done and seen: effects made once, requests answered once, and the audit."""
