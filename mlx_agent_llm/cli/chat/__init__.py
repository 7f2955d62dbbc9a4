"""mlx-agent chat: a conversation with a model, with tools if it is given some."""
