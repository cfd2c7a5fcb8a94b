"""The Pix2Pix networks and their losses. Nothing here reads data or trains."""
