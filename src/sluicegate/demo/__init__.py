"""The example company's day: its requests, what is expected of them, how they are sent and how the screen tells it."""
