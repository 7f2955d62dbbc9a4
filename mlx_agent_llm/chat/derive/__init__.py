"""What a chat template itself says about calls: small chats are rendered with it, and read."""
