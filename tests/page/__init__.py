"""The page that sends and receives, in a real browser against real nodes."""
