"""Studies of the method behind the figures of docs/method.md."""
