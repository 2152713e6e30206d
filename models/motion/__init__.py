"""Motion between two images: fields, registration, images between."""
