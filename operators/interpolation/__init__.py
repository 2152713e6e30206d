"""Made phases between the acquired ones of a cine."""
